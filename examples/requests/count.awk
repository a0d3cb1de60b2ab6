# Counts one part of a request log. POSIX awk (%.0f: %d stops at 2^31 in some); run as
#   awk -F, -v name=LOG -v part=K -f count.awk part.csv
NR > 1 {
    requests += 1
    context += $2
    generated += $3
}
END {
    printf "{\"kind\":\"count\",\"log\":\"%s\",\"part\":%d,\"requests\":%d,", name, part, requests
    printf "\"context_tokens\":%.0f,\"generated_tokens\":%.0f}\n", context, generated
}

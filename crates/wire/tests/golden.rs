//! Golden frames: what protocol 1 looks like on the wire. A later build must still read every line of
//! these files; they are added to, never changed. (A new field gets a default and a new line.)

#![allow(clippy::unwrap_used, reason = "a test that finds nothing has failed")]

use serde::Serialize;
use serde::de::DeserializeOwned;
use skein_wire::join::JoinToken;
use skein_wire::lane::{LogChunk, Stream, decode_logs, encode_logs};
use skein_wire::{FRAME_BYTES_MAX, FromAgent, ToAgent, decode, encode, frame};

fn holds<T: DeserializeOwned + Serialize>(file: &str, lines: &str) {
    for (number, line) in lines.lines().enumerate() {
        let messages: Vec<T> = decode(line).unwrap_or_else(|e| panic!("{file} line {}: {e}", number + 1));
        let again = encode(&messages).unwrap();
        let (kept, now): (serde_json::Value, serde_json::Value) =
            (serde_json::from_str(line).unwrap(), serde_json::from_str(&again).unwrap());
        assert!(contains(&now, &kept), "{file} line {}:\n{line}\nis now\n{again}", number + 1);
    }
}

/// Does `now` say everything that `kept` says? It may say more: a newer build names new fields.
fn contains(now: &serde_json::Value, kept: &serde_json::Value) -> bool {
    match (now, kept) {
        (serde_json::Value::Object(now), serde_json::Value::Object(kept)) => {
            kept.iter().all(|(k, v)| now.get(k).is_some_and(|n| contains(n, v)))
        }
        (serde_json::Value::Array(now), serde_json::Value::Array(kept)) => {
            now.len() == kept.len() && now.iter().zip(kept).all(|(n, k)| contains(n, k))
        }
        _ => now == kept,
    }
}

#[test]
fn protocol_1_is_still_understood() {
    holds::<ToAgent>("to_agent_1.jsonl", include_str!("golden/to_agent_1.jsonl"));
    holds::<FromAgent>("from_agent_1.jsonl", include_str!("golden/from_agent_1.jsonl"));
}

#[test]
fn an_unknown_field_of_a_newer_peer_is_ignored() {
    let newer = r#"{"messages":[{"type":"lease","heartbeat":1,"lease_ms":2,"heartbeat_ms":3,"new_in_2":true}]}"#;
    assert_eq!(decode::<ToAgent>(newer).unwrap(), [ToAgent::Lease { heartbeat: 1, lease_ms: 2, heartbeat_ms: 3 }]);
}

#[test]
fn frames_stay_within_their_limit_and_what_is_larger_is_handed_back() {
    let drain = |bytes: usize| ToAgent::Drain { why: "x".repeat(bytes) };
    let (frames, large) = frame::pack(&[drain(40_000), drain(40_000), drain(70_000), drain(10)]).unwrap();
    assert_eq!((frames.len(), large.len()), (2, 1));
    assert!(frames.iter().all(|f| f.len() <= FRAME_BYTES_MAX));
    let back: Vec<ToAgent> = frames.iter().flat_map(|f| decode::<ToAgent>(f).unwrap()).collect();
    assert_eq!(back, [drain(40_000), drain(40_000), drain(10)]);
    assert!(decode::<ToAgent>(&" ".repeat(FRAME_BYTES_MAX + 1)).unwrap_err().to_string().contains("bulk lane"));
}

#[test]
fn logs_and_join_tokens_come_back_as_they_went() {
    let chunk = |stream, offset, bytes: &[u8]| LogChunk {
        attempt: "s-5.0.1.1".parse().unwrap(),
        stream,
        offset,
        bytes: bytes.to_vec(),
    };
    let chunks =
        [chunk(Stream::Out, 0, b"a\n{\"b\n"), chunk(Stream::Err, 7, b""), chunk(Stream::Out, 6, &[0xff, b'\n'])];
    let body = encode_logs(&chunks);
    assert_eq!(decode_logs(&body).unwrap(), chunks);
    assert!(decode_logs(&body[..body.len() - 1]).is_err());
    let token = JoinToken { engine: "e-1".parse().unwrap(), secret: "ab".repeat(32), ca_digest: Some("0".repeat(64)) };
    assert_eq!(JoinToken::decode(&token.encode()).unwrap(), token);
    for bad in ["", "skein-join~e", "skein-join~e~xyz", "other~e~00"] {
        assert!(JoinToken::decode(bad).unwrap_err().to_string().contains("skein token join"), "{bad}");
    }
}

//! What S3 says, and what it is told, in XML.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::s3::{Digests, Sent};
use crate::http::Answer;
use crate::xml;

/// The digest that a part is sent with.
pub(super) const PART_DIGEST_HEADER: &str = "x-amz-checksum-sha256";

/// A part that the service has.
#[derive(Debug)]
pub(super) struct Listed {
    size: u64,
    /// As it is given back when the upload is completed.
    pub(super) tag: String,
    sha256: String,
}

impl Listed {
    /// Is it this one? By SHA-256 where the service keeps it, else by MD5, which is what a tag is unless the
    /// service encrypts with keys of its customers. If neither matches, it is sent again.
    pub(super) fn is(&self, len: u64, digests: &Digests) -> bool {
        let same =
            if self.sha256.is_empty() { md5(&self.tag) == digests.md5_hex } else { self.sha256 == digests.sha256 };
        self.size == len && same
    }
}

fn md5(tag: &str) -> String {
    tag.trim_matches('"').to_lowercase()
}

/// Does the answer to a part contradict what was sent? A tag that is no MD5, and no digest, say nothing: then the
/// service's own check of the digests that were sent has to do.
pub(super) fn says_the_same(answer: &Answer, tag: &str, digests: &Digests) -> bool {
    if let Some(sha256) = answer.header(PART_DIGEST_HEADER) {
        return sha256 == digests.sha256;
    }
    let tag = md5(tag);
    let is_md5 = tag.len() == 32 && tag.bytes().all(|byte| byte.is_ascii_hexdigit());
    let encrypted = answer.header("x-amz-server-side-encryption").is_some_and(|kind| kind != "AES256");
    !is_md5 || encrypted || tag == digests.md5_hex
}

pub(super) fn upload_id(answer: &Answer) -> Option<String> {
    xml::text(&answer.text(), "UploadId").filter(|id| !id.is_empty())
}

/// Ids of the uploads of this key.
pub(super) fn uploads(answer: &Answer, key: &str) -> Vec<String> {
    let uploads = xml::items(&answer.text(), "Upload", ["Key", "UploadId", "Initiated"]);
    let mut ours: Vec<(String, String)> =
        uploads.into_iter().filter(|[found, ..]| found == key).map(|[_, id, began]| (began, id)).collect();
    ours.sort();
    ours.into_iter().map(|(_, id)| id).collect()
}

/// Adds the parts of one page; gives where the next one begins.
pub(super) fn parts(answer: &Answer, all: &mut BTreeMap<u64, Listed>) -> Option<String> {
    let text = answer.text();
    for [number, size, tag, sha256] in xml::items(&text, "Part", ["PartNumber", "Size", "ETag", "ChecksumSHA256"]) {
        if let (Ok(number), Ok(size)) = (number.parse(), size.parse()) {
            all.insert(number, Listed { size, tag, sha256 });
        }
    }
    let more = xml::text(&text, "IsTruncated").is_some_and(|more| more == "true");
    if more { xml::text(&text, "NextPartNumberMarker").filter(|next| !next.is_empty()) } else { None }
}

/// The request that ends an upload.
pub(super) fn complete(parts: &[Sent]) -> String {
    let mut xml = "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">".to_owned();
    for Sent { number, tag, sha256, .. } in parts {
        let tag = xml::escape(tag);
        write!(
            xml,
            "<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag><ChecksumSHA256>{sha256}</ChecksumSHA256></Part>"
        )
        .unwrap_or_default();
    }
    xml.push_str("</CompleteMultipartUpload>");
    xml
}

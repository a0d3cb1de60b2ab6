//! No file over 800 lines, no function over 70.

use super::Complaints;
use crate::repo::TextFile;
use crate::source::{code_only, functions};

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;

pub(crate) fn check(files: &[TextFile]) -> Complaints {
    let mut wrong = Vec::new();
    for file in files.iter().filter(|f| f.is_rust()) {
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!(
                "{} has {lines} lines; the limit is {FILE_LINES_MAX}: split it by what it is about",
                file.path
            ));
        }
        for (name, line, lines) in functions(&code_only(&file.text)) {
            if lines > FUNCTION_LINES_MAX {
                let (path, most) = (&file.path, FUNCTION_LINES_MAX);
                wrong.push(format!("{path}:{line}: function '{name}' has {lines} lines; the limit is {most}"));
            }
        }
    }
    wrong
}

//! The table of error codes in `docs/api.md` is the enum, line for line.

use vstack_api::ErrorCode;

#[test]
fn every_code_stands_in_the_documentation_and_no_other() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (_, table) = page
        .split_once("| code | status | retryable | means |\n|---|---|---|---|\n")
        .unwrap();
    let documented: Vec<&str> = table.lines().take_while(|line| line.starts_with('|')).collect();
    let expected: Vec<String> = ErrorCode::ALL
        .iter()
        .map(|code| {
            let retryable = if code.retryable() { "yes" } else { "no" };
            format!(
                "| `{code}` | {} | {retryable} | {} |",
                code.status(),
                code.title()
            )
        })
        .collect();
    assert_eq!(documented, expected);
}

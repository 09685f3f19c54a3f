#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

#[test]
fn a_query_string_is_read() {
    let branch = Branch::from_query(
        "?gid=a%2Fb%20c&trans_type=xa&branch_id=01-02&op=action&gid=other\
         &dtm=http%3A%2F%2Fh%3A36789%2Fapi%2Fdtmsvr&phase2_url=http://me/xa?x=1&user=7",
    )
    .unwrap();
    assert_eq!(branch.gid(), "a/b c");
    assert_eq!(branch.trans_type(), TransType::Xa);
    assert_eq!(branch.branch_id(), "01-02");
    assert_eq!(branch.op(), &Op::Action);
    assert_eq!(branch.server(), Some("http://h:36789/api/dtmsvr"));
    assert_eq!(branch.phase2_url(), Some("http://me/xa?x=1"));
}

#[test]
fn metadata_is_read_in_any_letter_case_and_among_other_headers() {
    let pairs = [
        ("content-type", "application/grpc"),
        ("Dtm-Gid", "g"),
        ("dtm-trans_type", "tcc"),
        ("dtm-branch_id", "0201"),
        ("dtm-op", "cancel"),
        ("dtm-dtm", ""),
    ];
    let branch = Branch::from_metadata(pairs).unwrap();
    assert_eq!((branch.gid(), branch.branch_id()), ("g", "0201"));
    assert_eq!(branch.op().origin(), Some(Op::Try));
    assert_eq!(branch.server(), None);
}

#[test]
fn what_is_missing_or_unsafe_is_refused() {
    let long = "x".repeat(129);
    for (query, fault) in [
        ("", "trans_type is missing: was this called by a transaction manager?"),
        ("trans_type=saga", "gid is missing: was this called by a transaction manager?"),
        ("trans_type=saga&gid=", "gid is missing: was this called by a transaction manager?"),
        ("trans_type=sagas&gid=g&branch_id=01&op=action", "trans_type is not a known mode"),
        (
            "trans_type=saga&gid=a%0ab&branch_id=01&op=action",
            "gid has control characters or semicolons",
        ),
        (
            "trans_type=saga&gid=a;b&branch_id=01&op=action",
            "gid has control characters or semicolons",
        ),
        ("trans_type=saga&gid=a+&branch_id=01&op=action", "gid begins or ends with a blank"),
        (&format!("trans_type=saga&gid={long}&branch_id=01&op=action"), "gid is too long"),
        (
            "trans_type=saga&gid=a&branch_id=01%27&op=action",
            "branch_id may have letters, digits, '-', '_', '.' and ':'",
        ),
        ("trans_type=saga&gid=%ff&branch_id=01&op=action", "query is not UTF-8"),
    ] {
        assert_eq!(Branch::from_query(query).unwrap_err().to_string(), fault, "{query}");
    }
    let widest = "é".repeat(128);
    assert!(Branch::message(&widest).is_ok(), "the limit is in characters, as the column's");
}

#[test]
fn barriers_are_numbered_and_clones_share_the_count() {
    let branch = Branch::message("g").unwrap();
    assert_eq!(branch.next_barrier_id().unwrap().as_str(), "01");
    assert_eq!(branch.clone().next_barrier_id().unwrap().as_str(), "02");
    assert_eq!(branch.next_barrier_id().unwrap().as_str(), "03");
    assert_eq!(branch.at(42).next_barrier_id().unwrap().as_str(), "42");
    let last = branch.at(99);
    assert_eq!(last.next_barrier_id().unwrap().as_str(), "99");
    assert_eq!(last.next_barrier_id().unwrap_err(), TooManyBarriers);
}

//! What is accepted as a new transaction (spec 07 D37, D45; design.md law 7).

use std::sync::Arc;
use std::time::Duration;

use dtmd_protocol::{Gid, Invalid, Limits, Mode, NewGlobal};

use crate::story::{concurrent, new_global, serial};

fn check(new: &NewGlobal) -> Result<(), Invalid> {
    new.validate(&Limits::default())
}

fn saga_with_orders(orders: &[&[usize]], steps: usize) -> NewGlobal {
    let orders: Vec<Vec<usize>> = orders.iter().map(|before| before.to_vec()).collect();
    new_global(Mode::Saga { concurrent: true, orders: Arc::from(orders) }, steps)
}

#[test]
fn ordinary_ones_are_accepted() {
    assert_eq!(check(&new_global(serial(), 3)), Ok(()));
    assert_eq!(check(&new_global(concurrent(&[(2, &[0, 1]), (1, &[0])], 3), 3)), Ok(()));
    assert_eq!(check(&new_global(Mode::Tcc, 0)), Ok(()));
    assert_eq!(check(&new_global(Mode::Xa, 0)), Ok(()));
    assert_eq!(check(&saga_with_orders(&[], 2)), Ok(()));
}

#[test]
fn orders_that_can_never_be_met_are_refused() {
    let out_of_range = |step, steps| Err(Invalid::OrderOutOfRange { step, steps });
    assert_eq!(check(&saga_with_orders(&[&[], &[2]], 2)), out_of_range(2, 2));
    assert_eq!(check(&saga_with_orders(&[&[], &[], &[0]], 2)), out_of_range(2, 2));
    assert!(matches!(check(&saga_with_orders(&[&[0]], 1)), Err(Invalid::OrderCycle { step: 0 })));
    let cycle = saga_with_orders(&[&[], &[3], &[1], &[2], &[0]], 5);
    assert!(matches!(check(&cycle), Err(Invalid::OrderCycle { .. })));
    // A serial saga's line is an order too: 01 cannot wait for 02.
    let mut against_the_line = saga_with_orders(&[&[1], &[]], 2);
    let Mode::Saga { concurrent, .. } = &mut against_the_line.mode else { panic!() };
    *concurrent = false;
    assert!(matches!(check(&against_the_line), Err(Invalid::OrderCycle { .. })));
}

#[test]
fn sizes_and_options_are_limited() {
    let too_many = |result, expected| match result {
        Err(Invalid::TooMany { what, .. }) => assert_eq!(what, expected),
        other => panic!("{other:?}"),
    };
    too_many(check(&new_global(serial(), 1001)), "steps");
    let mut new = new_global(serial(), 1);
    new.steps[0].payload = Arc::from(vec![b' '; 256 * 1024 + 1]);
    too_many(check(&new), "payload bytes");
    let mut new = new_global(serial(), 1);
    new.steps[0].def.action = Arc::from(format!("http://{}", "x".repeat(1024)));
    too_many(check(&new), "URL bytes");

    let month = Duration::from_secs(31 * 24 * 3600);
    for set in 0..3 {
        let mut new = new_global(serial(), 1);
        let options = &mut new.options;
        let option = [
            &mut options.timeout_to_fail,
            &mut options.request_timeout,
            &mut options.retry_interval,
        ];
        *option.into_iter().nth(set).unwrap() = Some(month);
        assert!(matches!(check(&new), Err(Invalid::OptionRange { .. })), "{set}");
    }
}

#[test]
fn urls_nobody_can_call_are_refused_by_name() {
    for (url, word) in [("nacos://svc/p", "nacos"), ("file:///etc/passwd", "file")] {
        let mut new = new_global(serial(), 1);
        new.steps[0].def.action = Arc::from(url);
        let text = check(&new).unwrap_err().to_string();
        assert!(text.contains(word), "{text}");
    }
    let mut new = new_global(serial(), 1);
    new.steps[0].def.action = "topic://t".into();
    assert!(matches!(check(&new), Err(Invalid::TopicOutsideMsg { .. })));
    let mut new = new_global(Mode::Msg { delay: Duration::ZERO }, 1);
    new.steps[0].def.action = "topic://t".into();
    assert_eq!(check(&new), Ok(()));
}

#[test]
fn headers_that_break_or_redirect_a_call_are_refused() {
    let with = |name: &str, value: &str| {
        let mut new = new_global(serial(), 1);
        new.options.branch_headers = Arc::new([(name.to_owned(), value.to_owned())].into());
        check(&new)
    };
    assert_eq!(with("X-Token", "a b\tc"), Ok(()));
    for (name, value) in
        [("Host", "x"), ("content-length", "0"), ("a b", "x"), ("", "x"), ("a", "x\r\ny: z")]
    {
        assert!(matches!(with(name, value), Err(Invalid::Header { .. })), "{name:?}");
    }
}

#[test]
fn an_xa_gid_can_be_part_of_a_statement() {
    for (gid, ok) in [("order-1.a_b:c", true), ("o'; drop", false), (&"x".repeat(56), false)] {
        let mut new = new_global(Mode::Xa, 0);
        new.gid = Gid::new(gid).unwrap();
        assert_eq!(check(&new).is_ok(), ok, "{gid}");
    }
}

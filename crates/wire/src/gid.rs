//! New gids (spec 01 §1.1).

use dtmd_protocol::Gid;
use uuid::Uuid;

/// Digits and letters without those that are easily mistaken for others.
const ALPHABET: &[u8; 57] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const LENGTH: usize = 22;

/// Returns a gid that nobody has: 22 letters and digits that stand for a version 7 UUID.
pub fn new_gid() -> Gid {
    Gid::new(base57(Uuid::now_v7().as_u128())).expect("22 letters and digits are a gid")
}

/// Returns a number in base 57, least significant digit first, padded to 22 digits.
fn base57(mut number: u128) -> String {
    let mut text = String::with_capacity(LENGTH);
    for _ in 0..LENGTH {
        text.push(char::from(ALPHABET[(number % 57) as usize]));
        number /= 57;
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn vectors() {
        let table = [
            (0, "2222222222222222222222"),
            (1, "3222222222222222222222"),
            (56, "z222222222222222222222"),
            (57, "2322222222222222222222"),
            (u128::MAX, MAX_TEXT),
        ];
        for (number, text) in table {
            assert_eq!(base57(number), text);
        }
    }

    const MAX_TEXT: &str = "5B8cwPMGnU6qLbRvo7qEZo";

    #[test]
    fn every_number_fits_into_22_digits() {
        let digits = |text: &str| {
            let value = |c: u8| ALPHABET.iter().position(|&a| a == c).map(|at| at as u128);
            text.bytes()
                .rev()
                .try_fold(0_u128, |sum, c| sum.checked_mul(57)?.checked_add(value(c)?))
        };
        for number in [0, 1, 57, u128::from(u64::MAX), u128::MAX] {
            assert_eq!(digits(&base57(number)), Some(number));
        }
    }

    #[test]
    fn new_gids_differ() {
        let gids: HashSet<_> = (0..1000).map(|_| new_gid()).collect();
        assert_eq!(gids.len(), 1000);
        assert!(gids.iter().all(|gid| gid.as_str().len() == LENGTH));
    }
}

//! What strangers may have written where our recipes look.

use quorate_recipes::fuzzing;

/// Any data or names: the first byte says which.
pub fn recipe_records(input: &[u8]) {
    let Some((first, data)) = input.split_first() else {
        return;
    };
    match first % 6 {
        0 => fuzzing::record(data),
        1 => fuzzing::instance(data),
        2 => fuzzing::marks(data),
        3 => fuzzing::integer(data),
        4 => fuzzing::revocation(data),
        _ => fuzzing::names(&String::from_utf8_lossy(data)),
    }
}

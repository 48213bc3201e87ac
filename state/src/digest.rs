//! Hashes that every replica, every release and every machine computes alike.
//!
//! They serve two ends: finding a znode by its path, and the digest by which replicas prove that
//! they agree. Neither is a defence against somebody who looks for collisions: one costs a few more
//! comparisons, the other hides nothing from an honest replica. std's hashers promise no stability
//! from release to release, which is why this is here.

/// What a fact is about, so that equal words in different facts count differently.
#[derive(Clone, Copy)]
pub(crate) enum Fact {
    Znode = 1,
    Family = 2,
    Session = 3,
    Quota = 4,
    Acl = 5,
    Incarnation = 6,
}

/// Odd numbers without a pattern: the fractional parts of the square roots of 2, 3 and 5.
const ROOT_2: u64 = 0x6a09_e667_f3bc_c909;
const ROOT_3: u64 = 0xbb67_ae85_84ca_a73b;
const ROOT_5: u64 = 0x3c6e_f372_fe94_f82b;

/// The hash of the path `/`, from which all others are chained.
pub(crate) const ROOT_PATH: u64 = ROOT_5;

/// A hash in the making.
#[derive(Clone, Copy)]
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    pub(crate) fn of(fact: Fact, identity: u64) -> Self {
        Self(ROOT_2).word(fact as u64).word(identity)
    }

    pub(crate) fn word(self, word: u64) -> Self {
        Self(fold(self.0 ^ word, ROOT_3).wrapping_add(word))
    }

    pub(crate) fn number(self, number: i64) -> Self {
        self.word(number.cast_unsigned())
    }

    /// The bytes and how many there are.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Self {
        let mut state = self.0;
        let (pairs, rest) = bytes.as_chunks::<16>();
        for pair in pairs {
            state = fold_pair(state, pair);
        }
        if !rest.is_empty() {
            let mut pair = [0; 16];
            pair[..rest.len()].copy_from_slice(rest);
            state = fold_pair(state, &pair);
        }
        Self(state).word(bytes.len() as u64)
    }

    pub(crate) fn finish(self) -> u64 {
        fold(self.0 ^ ROOT_5, ROOT_2)
    }
}

/// The hash of a path from that of its parent.
pub(crate) fn step(parent: u64, name: &[u8]) -> u64 {
    Fingerprint(parent).bytes(name).0
}

/// The hash of a path. An ill-formed path has one as well; no znode answers to it.
pub(crate) fn path(path: &str) -> u64 {
    match path.strip_prefix('/').unwrap_or(path) {
        "" => ROOT_PATH,
        names => names
            .as_bytes()
            .split(|byte| *byte == b'/')
            .fold(ROOT_PATH, step),
    }
}

fn fold_pair(state: u64, pair: &[u8; 16]) -> u64 {
    let [low, high] = pair.as_chunks::<8>().0 else {
        unreachable!("16 bytes are two words");
    };
    fold(
        u64::from_le_bytes(*low) ^ ROOT_5,
        u64::from_le_bytes(*high) ^ state,
    )
    .wrapping_add(state)
}

/// Both halves of a product, into one word: every bit of the factors reaches every bit of it.
#[expect(clippy::cast_possible_truncation, reason = "the halves of a product")]
pub(crate) fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

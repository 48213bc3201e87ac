//! Which four-letter words the client port answers.

use std::collections::BTreeSet;

/// The whitelist `4lw.commands.whitelist`. A word on it that no server knows does no harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FourLetterWords {
    /// `*`.
    All,
    /// These and no others; case counts, as on the wire.
    Only(BTreeSet<String>),
}

impl FourLetterWords {
    /// A list separated by commas; blanks around words do not count, `*` anywhere means all.
    pub(super) fn parse(list: &str) -> Self {
        let words: BTreeSet<String> = list
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect();
        if words.contains("*") {
            Self::All
        } else {
            Self::Only(words)
        }
    }

    /// Whether `word` may be executed.
    pub fn allows(&self, word: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(words) => words.contains(word),
        }
    }
}

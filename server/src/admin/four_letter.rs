//! The four-letter words: a client port's answers to administrators' scripts.
//!
//! Shapes and names are ZooKeeper's, because monitors parse them. Each answer is text; the
//! connection then closes. A word that the whitelist does not name is answered with a line that
//! exporters look for.

use std::sync::atomic::Ordering::Relaxed;

use super::{listings, monitor, status};
use crate::client_port::listener::ClientPort;

/// ZooKeeper's default trace mask (decimal 306): it is kept and shown, and traces nothing here.
pub const TRACE_MASK_DEFAULT: i64 = 0o462;

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Ruok,
    Srvr,
    Stat,
    Mntr,
    Conf,
    Cons,
    Dump,
    Wchs,
    Wchc,
    Wchp,
    Envi,
    Isro,
    Srst,
    Crst,
    Dirs,
    Hash,
    Gtmk,
    Stmk,
}

impl Word {
    const ALL: [(Self, &'static str); 18] = [
        (Self::Ruok, "ruok"),
        (Self::Srvr, "srvr"),
        (Self::Stat, "stat"),
        (Self::Mntr, "mntr"),
        (Self::Conf, "conf"),
        (Self::Cons, "cons"),
        (Self::Dump, "dump"),
        (Self::Wchs, "wchs"),
        (Self::Wchc, "wchc"),
        (Self::Wchp, "wchp"),
        (Self::Envi, "envi"),
        (Self::Isro, "isro"),
        (Self::Srst, "srst"),
        (Self::Crst, "crst"),
        (Self::Dirs, "dirs"),
        (Self::Hash, "hash"),
        (Self::Gtmk, "gtmk"),
        (Self::Stmk, "stmk"),
    ];

    /// `None` for bytes that are no command, and so may be the length of a frame.
    pub fn parse(bytes: &[u8; 4]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find_map(|(word, name)| (name.as_bytes() == bytes).then_some(word))
    }

    fn name(self) -> &'static str {
        Self::ALL
            .into_iter()
            .find_map(|(word, name)| (word == self).then_some(name))
            .unwrap_or_default()
    }
}

impl Word {
    /// Whether ZooKeeper answers it only while it serves clients.
    fn needs_service(self) -> bool {
        !matches!(
            self,
            Self::Ruok | Self::Conf | Self::Envi | Self::Gtmk | Self::Stmk
        )
    }
}

/// The answer to `word`; `None` while more of the command (`stmk`'s mask, the number) is to come.
pub fn answer(port: &ClientPort, word: Word, number: Option<i64>) -> Option<String> {
    if !port.config.four_letter_words.allows(word.name()) {
        let name = word.name();
        return Some(format!(
            "{name} is not executed because it is not in the whitelist.\n"
        ));
    }
    if word.needs_service()
        && let Some(excuse) = status::not_serving(port)
    {
        return Some(match word {
            Word::Isro => "null".to_owned(),
            // The reason, in a form that exporters take.
            Word::Mntr if port.consensus.members().out_of_service().is_some() => {
                monitor::mntr(port)
            }
            _ => excuse,
        });
    }
    Some(match word {
        Word::Ruok => "imok".to_owned(),
        Word::Isro if port.is_read_only() => "ro".to_owned(),
        Word::Isro => "rw".to_owned(),
        Word::Srvr => status::srvr(port),
        Word::Stat => status::stat(port),
        Word::Mntr => monitor::mntr(port),
        Word::Conf => status::conf(port),
        Word::Cons => status::cons(port),
        Word::Dump => listings::dump(port),
        Word::Wchs => listings::wchs(port),
        Word::Wchc => listings::wchc(port),
        Word::Wchp => listings::wchp(port),
        Word::Envi => status::envi(),
        Word::Srst => {
            port.metrics.reset();
            "Server stats reset.\n".to_owned()
        }
        Word::Crst => {
            for outbox in port.replica.connections().values() {
                outbox.lock().reset_stats();
            }
            "Connection stats reset.\n".to_owned()
        }
        Word::Dirs => status::dirs(port),
        Word::Hash => port
            .replica
            .inspect(|state| format!("{:x}: {}\n", state.last_zxid().0, state.digest())),
        Word::Gtmk => port.trace_mask.load(Relaxed).to_string(),
        Word::Stmk => {
            let mask = number?;
            port.trace_mask.store(mask, Relaxed);
            mask.to_string()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::Word;

    #[test]
    fn a_word_is_known_by_its_four_letters_and_in_no_other_case() {
        for (word, name) in Word::ALL {
            let bytes: [u8; 4] = name.as_bytes().try_into().expect("four letters");
            assert_eq!(Word::parse(&bytes), Some(word));
            assert_eq!(word.name(), name);
            assert_eq!(
                Word::parse(&bytes.map(|byte| byte.to_ascii_uppercase())),
                None
            );
        }
    }

    #[test]
    fn the_length_of_a_frame_within_the_usual_limit_is_no_word() {
        for length in [0, 44, 45, 0xf_ffff_u32, 0x0fff_ffff] {
            assert_eq!(Word::parse(&length.to_be_bytes()), None);
        }
    }
}

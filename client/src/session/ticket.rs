//! What it takes to go on with a session elsewhere.

use std::fmt;
use std::str::FromStr;

use quorate_protocol::{Password, SessionId, Zxid};

/// A session's id and password, and how far its reads have come: whoever has it can go on with the
/// session, in this process or in another one. As good as a secret: `Debug` hides it, and
/// [`SessionTicket::export`] does not.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionTicket {
    pub(crate) id: SessionId,
    pub(crate) password: Password,
    pub(crate) last_zxid: Zxid,
}

/// A text that is no ticket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a session ticket: expected what `SessionTicket::export` returns")]
pub struct InvalidTicket;

impl SessionTicket {
    /// The session.
    pub fn session(&self) -> SessionId {
        self.id
    }

    /// As one line of text, for [`SessionTicket::from_str`].
    pub fn export(&self) -> String {
        let mut text = format!("{:x}-{:x}-", self.id.get(), self.last_zxid.0);
        for byte in self.password.as_bytes() {
            text.push_str(&format!("{byte:02x}"));
        }
        text
    }
}

impl fmt::Debug for SessionTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionTicket")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl FromStr for SessionTicket {
    type Err = InvalidTicket;

    fn from_str(text: &str) -> Result<Self, InvalidTicket> {
        let mut parts = text.trim().splitn(3, '-');
        let mut number = || {
            let digits = parts.next().ok_or(InvalidTicket)?;
            let number = u64::from_str_radix(digits, 16).map_err(|_| InvalidTicket)?;
            Ok(number.cast_signed())
        };
        let id = SessionId::new(number()?).ok_or(InvalidTicket)?;
        let last_zxid = Zxid(number()?);
        let password = parts.next().filter(|password| password.is_ascii());
        let password = password.ok_or(InvalidTicket)?.as_bytes();
        let mut bytes = [0; Password::BYTES];
        if password.len() != 2 * bytes.len() {
            return Err(InvalidTicket);
        }
        for (byte, digits) in bytes.iter_mut().zip(password.chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| InvalidTicket)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| InvalidTicket)?;
        }
        Ok(Self {
            id,
            password: Password::new(bytes),
            last_zxid,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(id: i64) -> SessionTicket {
        SessionTicket {
            id: SessionId::new(id).expect("not zero"),
            password: Password::new(*b"0123456789abcdef"),
            last_zxid: Zxid(0x1_0000_0007),
        }
    }

    #[test]
    fn a_ticket_survives_export_and_import() {
        for id in [1, i64::MAX, i64::MIN, -1] {
            assert_eq!(ticket(id).export().parse(), Ok(ticket(id)));
        }
    }

    #[test]
    fn a_text_that_is_no_ticket_is_refused() {
        let good = ticket(5).export();
        for bad in [
            "",
            "5",
            "5-7",
            "0-7-30",
            &good[1..],
            &good[..good.len() - 1],
            "x-1-2",
            "1-1-é",
        ] {
            assert_eq!(bad.parse::<SessionTicket>(), Err(InvalidTicket), "{bad}");
        }
    }

    #[test]
    fn the_password_is_not_shown() {
        assert!(!format!("{:?}", ticket(5)).contains("3031"));
    }
}

//! Where a znode is.

use std::fmt;

/// A path that a znode may have: absolute, without empty, `.` or `..` components, and without the
/// characters ZooKeeper refuses.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZnodePath(Box<str>);

/// Why a string is no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// There is nothing.
    #[error("a path may not be empty")]
    Empty,
    /// It does not start with a slash.
    #[error("a path must start with /")]
    NotAbsolute,
    /// It ends with a slash, and is not the root.
    #[error("a path may not end with /")]
    TrailingSlash,
    /// Two slashes follow one another.
    #[error("a path may not have an empty component")]
    EmptyComponent,
    /// A component is `.` or `..`.
    #[error("a path may not have . or .. as a component")]
    RelativeComponent,
    /// One of the characters that ZooKeeper refuses.
    #[error("a path may not hold the character {0:?}")]
    Character(char),
}

impl ZnodePath {
    /// Checks `path` by ZooKeeper's rules.
    ///
    /// # Errors
    ///
    /// [`PathError`] with the first rule that is broken.
    pub fn parse(path: &str) -> Result<Self, PathError> {
        Self::check(path)?;
        Ok(Self(path.into()))
    }

    /// As [`Self::parse`], for those who need no copy.
    ///
    /// # Errors
    ///
    /// [`PathError`] with the first rule that is broken.
    pub fn check(path: &str) -> Result<(), PathError> {
        let Some(components) = path.strip_prefix('/') else {
            return Err(if path.is_empty() {
                PathError::Empty
            } else {
                PathError::NotAbsolute
            });
        };
        if components.is_empty() {
            return Ok(());
        }
        if components.ends_with('/') {
            return Err(PathError::TrailingSlash);
        }
        for component in components.split('/') {
            match component {
                "" => return Err(PathError::EmptyComponent),
                "." | ".." => return Err(PathError::RelativeComponent),
                _ => {}
            }
        }
        // Nearly every path is printable ASCII, which needs no look at characters.
        if components.bytes().all(|byte| matches!(byte, 0x20..=0x7e)) {
            return Ok(());
        }
        match components.chars().find(|c| is_forbidden(*c)) {
            Some(c) => Err(PathError::Character(c)),
            None => Ok(()),
        }
    }

    /// The whole path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path's last component; empty for the root.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// `None` for the root.
    pub fn parent(&self) -> Option<&str> {
        match self.0.rfind('/')? {
            _ if self.is_root() => None,
            0 => Some("/"),
            slash => Some(&self.0[..slash]),
        }
    }

    /// Whether it is `/`.
    pub fn is_root(&self) -> bool {
        &*self.0 == "/"
    }
}

/// ZooKeeper's forbidden ranges. Java strings are UTF-16, so its range of surrogates and private
/// use (U+D800 to U+F8FF) takes with it every character above U+FFFF.
fn is_forbidden(c: char) -> bool {
    matches!(c,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}')
        || c > '\u{ffff}'
}

impl fmt::Display for ZnodePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ZnodePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

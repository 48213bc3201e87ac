//! The part of the tree that a client takes for the whole.
//!
//! Known to the client alone: what goes to the server is absolute, and what comes back is cut again
//! before anybody sees it. Nothing outside the chroot is ever made to look as if it were inside.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use quorate_protocol::ZnodePath;
use quorate_protocol::types::PathError;

/// The path that a client sees as `/`.
///
/// The default is the root of the tree, which changes nothing.
///
/// ```
/// use quorate_client::Chroot;
///
/// let app = Chroot::parse("/app")?;
/// assert_eq!(app.absolute("/config"), "/app/config");
/// assert_eq!(app.seen("/app/config"), Some("/config"));
/// assert_eq!(app.seen("/application"), None);
/// assert_eq!(app.join("/eu")?.absolute("/"), "/app/eu");
/// # Ok::<(), quorate_client::PathError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Chroot(
    /// Empty for the root, so that it can be put in front of any path.
    Arc<str>,
);

impl Chroot {
    /// Takes a path as the new root. `/` and the empty string both stand for the root of the tree.
    ///
    /// # Errors
    ///
    /// [`PathError`] with the first of ZooKeeper's rules for paths that is broken. As in ZooKeeper's
    /// own client, a slash at the end is refused.
    pub fn parse(path: &str) -> Result<Self, PathError> {
        if path.is_empty() || path == "/" {
            return Ok(Self::default());
        }
        ZnodePath::check(path)?;
        Ok(Self(path.into()))
    }

    /// Whether it is the root of the tree.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The chroot as an absolute path; empty for the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path to send to the server for the `path` that the caller uses.
    ///
    /// `path` is to start with a slash; it is not checked here, so the result is as valid as it is.
    pub fn absolute<'a>(&self, path: &'a str) -> Cow<'a, str> {
        if self.is_root() {
            Cow::Borrowed(path)
        } else if path == "/" {
            Cow::Owned(self.as_str().to_owned())
        } else {
            Cow::Owned(format!("{self}{path}"))
        }
    }

    /// The path as the caller knows it: `/` for the chroot itself, `None` for what lies outside.
    pub fn seen<'a>(&self, absolute: &'a str) -> Option<&'a str> {
        match absolute.strip_prefix(self.as_str())? {
            "" => Some("/"),
            path if path.starts_with('/') => Some(path),
            // "/application" is not below "/app".
            _ => None,
        }
    }

    /// The chroot at `path` within this one.
    ///
    /// # Errors
    ///
    /// As [`Self::parse`].
    pub fn join(&self, path: &str) -> Result<Self, PathError> {
        let below = Self::parse(path)?;
        Ok(if below.is_root() {
            self.clone()
        } else if self.is_root() {
            below
        } else {
            Self(format!("{self}{below}").into())
        })
    }
}

/// As in a connection string: nothing for the root.
impl fmt::Display for Chroot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chroot(path: &str) -> Chroot {
        Chroot::parse(path).expect("a valid chroot")
    }

    #[test]
    fn the_root_changes_no_path() {
        for root in [Chroot::default(), chroot("/"), chroot("")] {
            assert!(root.is_root());
            assert!(matches!(root.absolute("/a/b"), Cow::Borrowed("/a/b")));
            assert_eq!(root.absolute("/"), "/");
            assert_eq!(root.seen("/a/b"), Some("/a/b"));
            assert_eq!(root.seen("/"), Some("/"));
        }
    }

    #[test]
    fn what_only_begins_alike_lies_outside() {
        let app = chroot("/app");
        assert_eq!(app.seen("/app"), Some("/"));
        assert_eq!(app.seen("/app/x"), Some("/x"));
        assert_eq!(app.seen("/apps"), None);
        assert_eq!(app.seen("/apps/x"), None);
        assert_eq!(app.seen("/ap"), None);
        assert_eq!(app.seen("/"), None);
        assert_eq!(app.seen("/other"), None);
    }

    #[test]
    fn an_invalid_path_is_refused_with_its_reason() {
        assert_eq!(Chroot::parse("app"), Err(PathError::NotAbsolute));
        assert_eq!(Chroot::parse("/app/"), Err(PathError::TrailingSlash));
        assert_eq!(Chroot::parse("//app"), Err(PathError::EmptyComponent));
        assert_eq!(
            chroot("/app").join("/../x"),
            Err(PathError::RelativeComponent)
        );
    }

    #[test]
    fn joining_the_root_changes_nothing() {
        let app = chroot("/app");
        assert_eq!(app.join("/"), Ok(app.clone()));
        assert_eq!(Chroot::default().join("/app"), Ok(app));
    }

    proptest! {
        #[test]
        fn a_path_comes_back_as_the_caller_knew_it(
            root in "(/[a-z.]{1,3}x){0,3}",
            path in "/|(/[a-z.]{1,3}x){1,3}",
        ) {
            let root = chroot(&root);
            let absolute = root.absolute(&path);
            prop_assert!(ZnodePath::check(&absolute).is_ok());
            prop_assert_eq!(root.seen(&absolute), Some(path.as_str()));
        }

        #[test]
        fn a_chroot_within_a_chroot_is_both_one_after_the_other(
            outer in "(/[a-z]{1,3}){0,2}",
            inner in "(/[a-z]{1,3}){0,2}",
            path in "/|(/[a-z]{1,3}){1,3}",
        ) {
            let joined = chroot(&outer).join(&inner).expect("both are valid");
            let inside = chroot(&inner).absolute(&path).into_owned();
            prop_assert_eq!(joined.absolute(&path), chroot(&outer).absolute(&inside));
        }
    }
}

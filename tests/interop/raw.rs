//! Raw conversations, byte by byte, that both servers have to answer alike.
//!
//! Each test is one conversation with a freshly started server. The line it notes starts with the
//! connection's name and says what was asked; see [`crate::wire`] for what is left out of it.

mod acl;
mod handshake;
mod malformed;
mod multi;
mod operations;
mod paths;
mod session;
mod settings;
mod watches;
mod words;

use quorate_tests::server::{Product, Settings};

use crate::compare;
use crate::wire::{Conversation, UNEXPECTED};

fn conversation(test: &'static str, script: impl Fn(&Conversation) + Sync) {
    conversation_with(test, &Settings::default(), script);
}

fn conversation_with(
    test: &'static str,
    settings: &Settings,
    script: impl Fn(&Conversation) + Sync,
) {
    compare(test, &[], settings, |server| {
        let conversation = Conversation::new(server.address());
        script(&conversation);
        let lines = conversation.into_lines();
        let lost = lines.iter().find(|line| line.ends_with(UNEXPECTED));
        assert!(
            server.product() == Product::Quorate || lost.is_none(),
            "{test}: the reference ends the conversation: {lost:?}"
        );
        lines
    });
}

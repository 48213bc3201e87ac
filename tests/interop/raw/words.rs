//! Four-letter words: the shape of their answers, not the values.

use super::conversation;
use crate::wire::{add_watch, create, get_data};
use quorate_tests::server::four_letter_word;

/// The line with its values removed: what a parser keys on.
fn shape(word: &str, line: &str) -> String {
    let key_of = |separator: &str| {
        line.split_once(separator)
            .map(|(key, _)| format!("{key}{separator}"))
    };
    let digits_out = || {
        let mut out = String::new();
        for part in line.chars() {
            if !part.is_ascii_digit() {
                out.push(part);
            } else if !out.ends_with('#') {
                out.push('#');
            }
        }
        out
    };
    match word {
        "mntr" => key_of("\t").unwrap_or_else(|| line.to_owned()),
        "conf" | "envi" => key_of("=").unwrap_or_else(|| line.to_owned()),
        "srvr" | "stat" if !line.starts_with(' ') => {
            key_of(": ").unwrap_or_else(|| line.to_owned())
        }
        _ => digits_out().replace("#.#", "#"),
    }
}

#[test]
fn the_answers_to_four_letter_words_have_the_same_shape() {
    conversation(
        "the_answers_to_four_letter_words_have_the_same_shape",
        |talk| {
            let mut a = talk.connect("a");
            a.quietly(&create("/w", 0));
            a.quietly(&create("/w/e", 1));
            a.quietly(&get_data("/w", true));
            a.quietly(&add_watch("/w", 1));
            for word in [
                "ruok", "isro", "srvr", "stat", "conf", "crst", "srst", "dirs", "wchs", "gtmk",
            ] {
                let answer = four_letter_word(talk.address(), word.as_bytes()).unwrap();
                for line in answer.split('\n') {
                    talk.note(format!("{word}: {}", shape(word, line)));
                }
            }
            for tail in ["\n", "\r\n", " and much more"] {
                let asked = format!("ruok{tail}");
                let answer = four_letter_word(talk.address(), asked.as_bytes()).unwrap();
                talk.note(format!("{asked:?}: {answer:?}"));
            }
            let unknown =
                four_letter_word(talk.address(), b"none").unwrap_or_else(|_| String::new());
            talk.note(format!("an unknown word: {unknown:?}"));
            let upper = four_letter_word(talk.address(), b"RUOK").unwrap_or_else(|_| String::new());
            talk.note(format!("in capitals: {upper:?}"));
        },
    );
}

#[test]
fn the_keys_that_dashboards_use_are_there() {
    conversation("the_keys_that_dashboards_use_are_there", |talk| {
        let answer = four_letter_word(talk.address(), b"mntr").unwrap();
        // Gauges of the compatibility reference, 8.2, on a standalone server.
        for key in [
            "version",
            "server_state",
            "avg_latency",
            "max_latency",
            "min_latency",
            "packets_received",
            "packets_sent",
            "num_alive_connections",
            "outstanding_requests",
            "uptime",
            "znode_count",
            "ephemerals_count",
            "watch_count",
            "approximate_data_size",
            "global_sessions",
            "local_sessions",
            "open_file_descriptor_count",
            "max_file_descriptor_count",
            "connection_drop_probability",
            "auth_failed_count",
            "last_client_response_size",
            "max_client_response_size",
            "min_client_response_size",
            "commit_count",
            "connection_request_count",
            "connection_rejected",
            "bytes_received_count",
            "stale_sessions_expired",
        ] {
            let prefix = format!("zk_{key}\t");
            let value = answer.lines().find_map(|line| line.strip_prefix(&prefix));
            talk.note(format!(
                "{key}: {}",
                if value.is_some_and(|value| !value.is_empty()) {
                    "there"
                } else {
                    "missing"
                }
            ));
        }
        let odd = answer.lines().filter(|line| {
            let parts = line
                .strip_prefix("zk_")
                .and_then(|rest| rest.split_once('\t'));
            !parts.is_some_and(|(key, value)| !key.is_empty() && !value.is_empty())
        });
        talk.note(format!("lines of another form: {}", odd.count()));
        let envi = four_letter_word(talk.address(), b"envi").unwrap();
        talk.note(format!("envi starts: {:?}", envi.lines().next()));
        talk.note(format!(
            "envi has a version: {}",
            envi.contains("\nzookeeper.version=3.")
        ));
    });
}

#[test]
fn lists_of_watches_and_sessions_have_the_same_shape() {
    conversation(
        "lists_of_watches_and_sessions_have_the_same_shape",
        |talk| {
            let mut a = talk.connect("a");
            a.quietly(&create("/w", 0));
            a.quietly(&create("/w/e", 1));
            a.quietly(&get_data("/w", true));
            for word in ["wchc", "wchp", "cons", "dump"] {
                let answer = four_letter_word(talk.address(), word.as_bytes()).unwrap();
                let mut lines: Vec<String> = answer
                    .lines()
                    .filter(|line| !line.contains(" expire at "))
                    .map(|line| match line.find("0x") {
                        Some(at) if word != "cons" => {
                            let rest =
                                line[at + 2..].trim_start_matches(|c: char| c.is_ascii_hexdigit());
                            format!("{}0x..{rest}", &line[..at])
                        }
                        _ if word == "cons" => keys_of_connection(line),
                        _ if line.contains(" Sets (") => shape(word, line),
                        _ => line.to_owned(),
                    })
                    .map(|line| match line.find("ip: /") {
                        Some(at) => format!(
                            "{}ip: /..{}",
                            &line[..at],
                            &line[line.find(" sessionId").unwrap_or(line.len())..]
                        ),
                        None => line,
                    })
                    .collect();
                lines.sort();
                for line in lines {
                    talk.note(format!("{word}: {line:?}"));
                }
            }
        },
    );
}

/// ` /127.0.0.1:48246[0](queued=0,recved=1)` without its numbers.
fn keys_of_connection(line: &str) -> String {
    let Some((_, inside)) = line.split_once("](") else {
        return line.to_owned();
    };
    let keys: Vec<&str> = inside
        .split(',')
        .map(|pair| pair.split('=').next().unwrap_or(pair))
        .collect();
    format!("{} {}", line.starts_with(" /127.0.0.1:"), keys.join(","))
}

//! `zkCli.sh`: the class it starts, fed with commands, as an operator's script would.

use quorate_tests::process::Finished;
use quorate_tests::server::{Settings, java, servers};
use quorate_tests::skip::Need;
use quorate_tests::transcript::normalise;

use super::output;
use crate::compare;

const JARS: &[&str] = &["zookeeper", "zookeeper-jute", "slf4j-simple"];

/// One command a line.
const COMMANDS: &str = "\
version
create /a hello
create /a again
create -s /a/s- x
create -s -e /a/se- y
create -e /a/e z
create -c /a/c
create -t 60000 /a/t ttl
create /a/b \"two words\"
create /no/parent x
ls /
ls -R /a
ls -s /a
ls -w /a
get /a
get -s /a
get /nope
set /a changed
set /a again -v 1
set /a refused -v 1
set -s /a more
get /a
stat /a
stat /a/e
stat /a/c
stat /a/t
stat /nope
getAllChildrenNumber /a
getEphemerals
getEphemerals /a
getEphemerals /nope
create /acl x world:anyone:cdrwa
getAcl /acl
getAcl -s /acl
whoami
addauth digest bob:secret
whoami
setAcl /acl auth:bob:secret:cdrwa
getAcl /acl
setAcl /acl world:anyone:r -v 0
setAcl /acl world:anyone:bad
create /bob x digest:bob:XJS8P4dUkxZpGKTJHJDGm3cvRL4=:cdrwa
getAcl /bob
get /bob
sync /a
setquota -n 10 /a
setquota -b 1000 /a
listquota /a
setquota -N 12 /a
setquota -B 2000 /a
listquota /a
setquota -n 3 /a/b
delquota -n /a
listquota /a
delquota /a
listquota /a
config
config -s
reconfig -add server.2=localhost:1:2:participant;3
addWatch -m PERSISTENT /watched
removewatches /watched
addWatch /watched
delete /a
delete /a/b -v 9
delete /a/b
delete /nope
deleteall /a
ls /
deleteall /acl
ls /zookeeper
delete /zookeeper
close
ls /
";

#[test]
fn a_session_of_the_command_line_client_reads_the_same() {
    let test = "a_session_of_the_command_line_client_reads_the_same";
    compare(test, &[Need::Jars(JARS)], &Settings::default(), |server| {
        let mut command = java(JARS);
        command
            .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=error")
            .arg("-Dzookeeper.cli.prompt=false")
            .args([
                "org.apache.zookeeper.ZooKeeperMain",
                "-waitforconnection",
                "-server",
            ])
            .arg(server.address().to_string());
        comparable(&output(command, COMMANDS), &server.address().to_string())
    });
}

/// Marks the values of zkCli's own print format, and puts the lines that its event thread prints,
/// at any moment, behind all others.
fn comparable(done: &Finished, address: &str) -> Vec<String> {
    let (mut lines, mut events) = (Vec::new(), Vec::new());
    for line in done
        .stdout
        .lines()
        .filter(|line| !line.is_empty() && *line != "WATCHER::")
    {
        let line = line.replace(address, "ADDRESS");
        if line.starts_with("WatchedEvent ") {
            events.push(line);
        } else {
            lines.push(marked(&line));
        }
    }
    sort_identities(&mut lines);
    lines.push("--- events".to_owned());
    lines.append(&mut events);
    lines.push("--- errors".to_owned());
    lines.extend(done.stderr.lines().map(str::to_owned));
    normalise(&lines.join("\n"))
}

/// What `whoami` lists has no promised order.
fn sort_identities(lines: &mut [String]) {
    let mut rest = lines;
    while let Some(at) = rest.iter().position(|line| line == "Auth scheme: User") {
        let (_, listed) = std::mem::take(&mut rest).split_at_mut(at + 1);
        let is_identity = |line: &String| line.starts_with("digest: ") || line.starts_with("ip: ");
        let end = listed.iter().position(|line| !is_identity(line));
        let (listed, after) = listed.split_at_mut(end.unwrap_or(listed.len()));
        listed.sort();
        rest = after;
    }
}

fn marked(line: &str) -> String {
    if let Some(names) = line
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        let mut names: Vec<&str> = names.split(", ").collect();
        names.sort_unstable();
        return format!("[{}]", names.join(", "));
    }
    match line.split_once(" = ") {
        Some((key @ ("cZxid" | "mZxid" | "pZxid"), zxid)) => format!("{key} = {{zxid:{zxid}}}"),
        Some((key @ "ephemeralOwner", session)) => format!("{key} = {{session:{session}}}"),
        // Printed to the second and in the local time zone: only "never" can be told. In an
        // ensemble not even that, of the initial configuration (see `differences`).
        Some((key @ ("ctime" | "mtime"), time)) if !time.ends_with(" 1970") || servers() > 1 => {
            format!("{key} = set")
        }
        _ => line.to_owned(),
    }
}

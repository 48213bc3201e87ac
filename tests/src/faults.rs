//! A network of its own for one test, in which any server can be cut off from any other.
//!
//! The test runs itself again in a new network namespace; there, each server has a namespace and an
//! address, all on one bridge, and the test's clients reach every server whatever is cut. A cut is a
//! rule of nftables where packets come in, so it can be one-way, and neither side is told. All of it
//! is gone when the test's process is: nothing outside the namespace is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::Duration;

use crate::process::run;
use crate::server::quorate_binary;

/// Set for the test that runs inside.
const INSIDE: &str = "QUORATE_TEST_IS_IN_ITS_NETWORK";
/// Any test with faults; a second run of a test has no other limit.
const TEST_LIMIT: Duration = Duration::from_secs(3_600);
const COMMAND_LIMIT: Duration = Duration::from_secs(30);
/// Where clients come from that use [`Network::client_address`].
const CLIENTS: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 254);

/// Where a test stands.
#[derive(Debug)]
pub enum Place {
    /// In a network of its own.
    Inside(Network),
    /// Outside. The test ran in its own network meanwhile, and passed.
    Passed,
    /// No such network can be had, because of this.
    Impossible(String),
}

/// The servers' addresses, and what is cut.
#[derive(Debug)]
pub struct Network {
    servers: u64,
    cuts: BTreeSet<(u64, u64)>,
    weather: Weather,
}

/// All that is wrong with the links at one time; pairs are (from, to), and one direction only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// No packet gets there.
    pub cut: BTreeSet<(u64, u64)>,
    /// Every packet is answered with a reset.
    pub reset: BTreeSet<(u64, u64)>,
    /// So many of a hundred packets get lost.
    pub lossy: BTreeMap<(u64, u64), u8>,
    /// No packet of a client's gets to these.
    pub without_clients: BTreeSet<u64>,
    /// So many of a hundred packets of clients get lost on the way to these.
    pub lossy_clients: BTreeMap<u64, u8>,
}

impl Weather {
    /// The rules of `server`, at which packets come in.
    fn rules(&self, server: u64) -> String {
        let mut rules = String::new();
        let mut add = |rule: String| {
            let _ = writeln!(rules, "add rule inet cuts weather {rule}");
        };
        for from in to(&self.cut, server) {
            add(format!("ip saddr {} drop", address(from)));
        }
        for from in to(&self.reset, server) {
            let from = address(from);
            add(format!(
                "ip saddr {from} meta l4proto tcp reject with tcp reset"
            ));
        }
        for ((from, _), percent) in self.lossy.iter().filter(|((_, to), _)| *to == server) {
            let from = address(*from);
            add(format!(
                "ip saddr {from} numgen random mod 100 < {percent} drop"
            ));
        }
        if self.without_clients.contains(&server) {
            add(format!("ip saddr {CLIENTS} drop"));
        }
        if let Some(percent) = self.lossy_clients.get(&server) {
            add(format!(
                "ip saddr {CLIENTS} numgen random mod 100 < {percent} drop"
            ));
        }
        rules
    }
}

fn to(pairs: &BTreeSet<(u64, u64)>, server: u64) -> impl Iterator<Item = u64> {
    let there = pairs.iter().filter(move |(_, to)| *to == server);
    there.map(|(from, _)| *from)
}

/// Runs `test` (its whole name, as the test runner has it) in a network with so many servers.
///
/// # Errors
/// The test failed in there, or cannot be started.
pub fn enter(test: &str, servers: u64) -> io::Result<Place> {
    if std::env::var_os(INSIDE).is_some() {
        return Network::new(servers).map(Place::Inside);
    }
    if let Err(reason) = possible() {
        return Ok(Place::Impossible(reason));
    }
    let mut command = in_own_namespaces();
    // Built out here, once for all tests.
    command.env("QUORATE_BIN", quorate_binary()?);
    command
        .env(INSIDE, "1")
        .arg(std::env::current_exe()?)
        .args([test, "--exact", "--nocapture", "--test-threads=1"]);
    let done = run(command, "", TEST_LIMIT)?;
    // What passing tests say is for whoever runs them; a failing one's last words come as an error.
    if done.success && done.stdout.contains("1 passed") {
        eprint!("{}", done.stderr);
        return Ok(Place::Passed);
    }
    Err(io::Error::other(format!(
        "{test} failed in its network:\n{}\n{}",
        done.stdout, done.stderr
    )))
}

/// A command that runs its arguments as if on a machine of their own, and ends with this process.
#[must_use]
pub fn in_own_namespaces() -> Command {
    let mut command = dying_with_its_parent("unshare");
    command.args(["--net", "--mount", "--pid", "--mount-proc"]);
    command.args(["--fork", "--kill-child", "--propagation", "private", "--"]);
    command
}

/// A command that is killed when the thread that starts it ends.
pub(crate) fn dying_with_its_parent(program: impl Into<OsString>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]);
    command.arg(program.into());
    command
}

/// Whether namespaces, bridges and filters can be had.
///
/// # Errors
/// They cannot, because of this.
pub fn possible() -> Result<(), String> {
    let mut command = in_own_namespaces();
    command.args(["sh", "-ec", &script(1)]);
    match run(command, "", COMMAND_LIMIT) {
        Ok(done) if done.success => Ok(()),
        Ok(done) => Err(format!(
            "no network of one's own (root, iproute2 and nftables are needed): {}",
            done.stderr.trim()
        )),
        Err(error) => Err(format!("setpriv or unshare is missing: {error}")),
    }
}

/// Makes the bridge, and namespaces `s1`, `s2` and so on.
fn script(servers: u64) -> String {
    let mut script = "mkdir -p /run/netns\n\
         mount -t tmpfs none /run/netns\n\
         ip link set lo up\n\
         ip link add bridge type bridge\n\
         ip link set bridge up\n\
         ip address add 10.77.0.254/24 dev bridge\n"
        .to_owned();
    let _ = writeln!(script, "ip address add {CLIENTS}/24 dev bridge");
    for server in 1..=servers {
        let _ = write!(
            script,
            "ip netns add s{server}\n\
             ip link add v{server} type veth peer name eth0 netns s{server}\n\
             ip link set v{server} master bridge up\n\
             nsenter --net=/run/netns/s{server} sh -ec '\n\
               ip link set lo up\n\
               ip address add {}/24 dev eth0\n\
               ip address add {}/24 dev eth0\n\
               ip link set eth0 up\n\
               nft add table inet cuts\n\
               nft add set inet cuts from \"{{ type ipv4_addr; }}\"\n\
               nft add chain inet cuts input \"{{ type filter hook input priority 0; }}\"\n\
               nft add set inet cuts resetting \"{{ type ipv4_addr; }}\"\n\
               nft add rule inet cuts input ip saddr @from drop\n\
               nft add rule inet cuts input ip saddr @resetting meta l4proto tcp \
                 reject with tcp reset\n\
               nft add chain inet cuts weather\n\
               nft add rule inet cuts input jump weather'\n",
            address(server),
            client_address(server)
        );
    }
    script
}

fn address(server: u64) -> IpAddr {
    let last = u8::try_from(server).unwrap_or(u8::MAX);
    Ipv4Addr::new(10, 77, 0, last).into()
}

fn client_address(server: u64) -> IpAddr {
    let last = u8::try_from(server).unwrap_or(u8::MAX);
    Ipv4Addr::new(10, 77, 1, last).into()
}

impl Network {
    /// For a process that [`in_own_namespaces`] has begun.
    ///
    /// # Errors
    /// It cannot be had.
    pub fn new(servers: u64) -> io::Result<Self> {
        shell(&script(servers))?;
        Ok(Self {
            servers,
            cuts: BTreeSet::new(),
            weather: Weather::default(),
        })
    }

    #[must_use]
    pub fn servers(&self) -> u64 {
        self.servers
    }

    /// Where `server` listens.
    #[must_use]
    pub fn address(&self, server: u64) -> IpAddr {
        address(server)
    }

    /// Where `server` listens for clients that can be cut off from it: whoever uses the other address
    /// reaches it whatever the weather.
    #[must_use]
    pub fn client_address(&self, server: u64) -> IpAddr {
        client_address(server)
    }

    /// From now on the links are like this, at each server from one packet to the next.
    ///
    /// # Errors
    /// nft fails.
    pub fn set_weather(&mut self, weather: &Weather) -> io::Result<()> {
        for server in 1..=self.servers {
            let rules = weather.rules(server);
            if rules != self.weather.rules(server) {
                shell(&format!(
                    "nsenter --net=/run/netns/s{server} nft -f - <<'rules'\n\
                     flush chain inet cuts weather\n{rules}rules\n"
                ))?;
            }
        }
        weather.clone_into(&mut self.weather);
        Ok(())
    }

    /// As it was set last.
    #[must_use]
    pub fn weather(&self) -> &Weather {
        &self.weather
    }

    /// Destroys the connections that `server` has with `other`, on its side; the other one learns of it
    /// when it next sends something.
    ///
    /// # Errors
    /// ss fails.
    pub fn destroy_connections(&self, server: u64, other: u64) -> io::Result<()> {
        let there = address(other);
        shell(&format!(
            "nsenter --net=/run/netns/s{server} ss -K dst {there} >/dev/null"
        ))
    }

    /// A command that runs its arguments where `server` is.
    #[must_use]
    pub fn command(&self, server: u64) -> Command {
        let mut command = dying_with_its_parent("nsenter");
        command.arg(format!("--net=/run/netns/s{server}")).arg("--");
        command
    }

    /// From now on, packets of `from` do not reach `to`.
    ///
    /// # Errors
    /// nft fails.
    pub fn cut(&mut self, from: u64, to: u64) -> io::Result<()> {
        self.cuts.insert((from, to));
        let set = format!("inet cuts from '{{ {} }}'", address(from));
        shell(&format!(
            "nsenter --net=/run/netns/s{to} nft add element {set}"
        ))
    }

    /// For so long, whatever `from` sends to `to` is answered with a reset: `from` loses its connections
    /// at once, and `to` does not know.
    ///
    /// # Errors
    /// nft fails.
    pub fn reset(&self, from: u64, to: u64, lasts: Duration) -> io::Result<()> {
        let there = format!("nsenter --net=/run/netns/s{to} nft");
        shell(&format!(
            "{there} add element inet cuts resetting '{{ {} }}'\nsleep {}\n\
             {there} flush set inet cuts resetting",
            address(from),
            lasts.as_secs_f64()
        ))
    }

    /// From now on, no packet passes between servers of different groups.
    ///
    /// # Errors
    /// nft fails.
    pub fn split(&mut self, groups: &[&[u64]]) -> io::Result<()> {
        for (number, group) in groups.iter().enumerate() {
            for other in &groups[number + 1..] {
                for (one, another) in group
                    .iter()
                    .flat_map(|one| other.iter().map(move |another| (*one, *another)))
                {
                    self.cut(one, another)?;
                    self.cut(another, one)?;
                }
            }
        }
        Ok(())
    }

    /// Ends all cuts.
    ///
    /// # Errors
    /// nft fails.
    pub fn heal(&mut self) -> io::Result<()> {
        for to in std::mem::take(&mut self.cuts)
            .into_iter()
            .map(|(_, to)| to)
            .collect::<BTreeSet<_>>()
        {
            shell(&format!(
                "nsenter --net=/run/netns/s{to} nft flush set inet cuts from"
            ))?;
        }
        Ok(())
    }
}

fn shell(script: &str) -> io::Result<()> {
    let mut command = Command::new("sh");
    command.args(["-ec", script]);
    let done = run(command, "", COMMAND_LIMIT)?;
    if done.success {
        return Ok(());
    }
    Err(io::Error::other(format!("{script}: {}", done.stderr)))
}

//! Runs fuzz targets until each has been run as often as it is to be, over as many sittings as that
//! takes.
//!
//! What was run is added up in a file outside of the repository. Without options every target is run
//! to its own count, one after the other; what a target finds ends it, not the others, and the exit
//! code tells.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quorate_fuzz_targets::{ALL, Target};
use serde::{Deserialize, Serialize};

const USAGE: &str = "\
usage: campaign [options] [target...]
  --build             build the fuzzer's binaries first
  --minutes N         stop after so long (default: none)
  --scale N           run each target to one Nth of its count
  --state FILE        where counts are added up (default: target/fuzz-counts.json)
  --record FILE       append a line for each target to FILE
  --only-report       run nothing: say, and record, what was run
  --unpack            run nothing: put what was found worth keeping where the fuzzer sets out from
  --pack FOLDER       run nothing: pack what is in FOLDER/<target>, as -merge=1 has left it there
";

/// One sitting of the fuzzer: short, so that little is lost when it is ended.
const SLICE: u64 = 20_000_000;
/// How long a sitting may be, whatever it has run by then.
const SLICE_SECONDS: u64 = 300;

/// What the fuzzer ends with when it was told to end.
const INTERRUPTED: i32 = 72;

/// What is known of one target.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Tally {
    runs: u64,
    seconds: f64,
    /// Inputs that broke a promise, fixed since or not.
    findings: u64,
    /// Those that were there when it ran last.
    open_findings: u64,
    /// The seed of the fuzzer's random choices: each sitting takes the next.
    last_seed: u64,
    commit: String,
    /// Somebody has ended the last sitting: so ends the campaign.
    #[serde(skip)]
    is_interrupted: bool,
}

#[derive(Debug)]
struct Options {
    build: bool,
    deadline: Option<Instant>,
    scale: u64,
    state: PathBuf,
    record: Option<PathBuf>,
    only_report: bool,
    unpack: bool,
    pack: Option<PathBuf>,
    targets: Vec<Target>,
}

fn main() -> ExitCode {
    if std::env::var_os(AS_COMPILER).is_some() {
        return compile();
    }
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(what) => {
            say(&format!("{what}\n{USAGE}"));
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("the campaign cannot go on: {error}\n"));
            ExitCode::from(2)
        }
    }
}

fn say(text: &str) {
    // Nobody may be there to read it.
    io::stdout().write_all(text.as_bytes()).ok();
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        build: false,
        deadline: None,
        scale: 1,
        state: root().join("target/fuzz-counts.json"),
        record: None,
        only_report: false,
        unpack: false,
        pack: None,
        targets: Vec::new(),
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        let number = |text: String| {
            let number: Result<u64, _> = text.parse();
            number
                .ok()
                .filter(|number| *number > 0)
                .ok_or(format!("{text:?} is no number"))
        };
        match word.as_str() {
            "--build" => options.build = true,
            "--only-report" => options.only_report = true,
            "--unpack" => options.unpack = true,
            "--pack" => options.pack = Some(value()?.into()),
            "--minutes" => {
                let span = Duration::from_secs(60 * number(value()?)?);
                options.deadline = Some(Instant::now() + span);
            }
            "--scale" => options.scale = number(value()?)?,
            "--state" => options.state = value()?.into(),
            "--record" => options.record = Some(value()?.into()),
            name => match ALL.into_iter().find(|target| target.name == name) {
                Some(target) => options.targets.push(target),
                None => return Err(format!("there is no option or target {name:?}")),
            },
        }
    }
    if options.targets.is_empty() {
        options.targets = ALL.to_vec();
    }
    Ok(options)
}

/// Whether all targets have been run as often as they are to be, and none has found anything.
fn run(options: &Options) -> io::Result<bool> {
    if let Some(folder) = &options.pack {
        for target in &options.targets {
            pack_seeds(target, &folder.join(target.name))?;
        }
        return Ok(true);
    }
    for target in &options.targets {
        unpack_seeds(target)?;
    }
    if options.unpack {
        return Ok(true);
    }
    let mut tallies = load(&options.state)?;
    if !options.only_report {
        if options.build {
            build()?;
        }
        let commit = commit()?;
        'targets: for target in &options.targets {
            let mut tally = tallies.get(target.name).cloned().unwrap_or_default();
            tally.commit.clone_from(&commit);
            tally.open_findings = 0;
            while tally.runs < wanted(target, options) && tally.open_findings == 0 {
                let left = options
                    .deadline
                    .map(|end| end.saturating_duration_since(Instant::now()));
                if left.is_some_and(|left| left < Duration::from_secs(2)) {
                    break;
                }
                sitting(target, wanted(target, options), left, &mut tally)?;
                tallies.insert(target.name.to_owned(), tally.clone());
                replace(&options.state, &serde_json::to_vec_pretty(&tallies)?)?;
                if tally.is_interrupted {
                    break 'targets;
                }
            }
        }
    }
    let mut all_well = true;
    for target in &options.targets {
        let tally = tallies.get(target.name).cloned().unwrap_or_default();
        all_well &= tally.open_findings == 0 && tally.runs >= wanted(target, options);
        report(target, &tally, options)?;
    }
    Ok(all_well)
}

fn pack_file(target: &Target) -> PathBuf {
    root()
        .join("fuzz/seeds")
        .join(format!("{}.pack", target.name))
}

fn pack_seeds(target: &Target, folder: &Path) -> io::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    let paths: io::Result<Vec<PathBuf>> = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect();
    let inputs: io::Result<Vec<Vec<u8>>> = paths?.into_iter().map(fs::read).collect();
    let mut inputs = inputs?;
    inputs.sort();
    let packed = quorate_fuzz_targets::pack(&inputs);
    fs::write(
        pack_file(target),
        packed.ok_or(io::ErrorKind::FileTooLarge)?,
    )
}

/// Into the folder that the fuzzer sets out from, unless they are there.
fn unpack_seeds(target: &Target) -> io::Result<()> {
    let packed = match fs::read(pack_file(target)) {
        Ok(packed) => packed,
        // Not every target has one.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let inputs = quorate_fuzz_targets::unpack(&packed).ok_or(io::ErrorKind::InvalidData)?;
    let corpus = root().join("fuzz/corpus").join(target.name);
    fs::create_dir_all(&corpus)?;
    for (number, input) in inputs.into_iter().enumerate() {
        let file = corpus.join(format!("pack-{number}"));
        if !file.exists() {
            fs::write(file, input)?;
        }
    }
    Ok(())
}

fn wanted(target: &Target, options: &Options) -> u64 {
    target.runs / options.scale
}

/// The folder with the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Set while this program stands between cargo and the compiler.
const AS_COMPILER: &str = "QUORATE_FUZZ_COMPILES";

/// Optimised, and without a sanitizer: no code of ours is unsafe, and it takes half of the time. Nor are
/// comparisons traced, which takes another third: the seeds know the words and numbers that matter.
fn build() -> io::Result<()> {
    let built = Command::new("cargo")
        .args([
            "fuzz",
            "build",
            "--sanitizer",
            "none",
            "--no-trace-compares",
        ])
        .current_dir(root().join("fuzz"))
        // The fuzzer's compiler flags, on a stable toolchain.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC_WRAPPER", std::env::current_exe()?)
        .env(AS_COMPILER, "1")
        // What other builds have made is instrumented otherwise, and cargo would not know.
        .env("CARGO_TARGET_DIR", build_folder())
        .status()?;
    match built.success() {
        true => Ok(()),
        false => Err(io::Error::other("the targets do not build")),
    }
}

fn build_folder() -> PathBuf {
    root().join("fuzz/target/campaign")
}

/// Calls the compiler, as cargo asked. Only what is ours is watched by the fuzzer: what others' code
/// does with an input is of no interest in itself, and takes time.
fn compile() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let compiler = words.next().unwrap_or_default();
    let words: Vec<String> = words.collect();
    let name = words.windows(2).find(|pair| pair[0] == "--crate-name");
    let is_ours = name.is_some_and(|pair| pair[1].starts_with("quorate"));
    let is_kept =
        |word: &&String| is_ours || !word.contains("sancov") && !word.contains("sanitizer-");
    match Command::new(compiler)
        .args(words.iter().filter(is_kept))
        .status()
    {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Which sources were built, if that is known.
fn commit() -> io::Result<String> {
    let told = Command::new("git")
        .args(["describe", "--always", "--dirty=+"])
        .current_dir(root())
        .stderr(Stdio::null())
        .output()?;
    Ok(String::from_utf8_lossy(&told.stdout).trim().to_owned())
}

fn load(path: &Path) -> io::Result<BTreeMap<String, Tally>> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

/// Never half of it: the count of many hours is in there.
fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let new = path.with_extension("new");
    fs::write(&new, contents)?;
    fs::rename(new, path)
}

/// Where the fuzzer's build has put a binary, whatever machine this is.
fn binary(name: &str) -> io::Result<PathBuf> {
    for entry in fs::read_dir(build_folder())? {
        let path = entry?.path().join("release").join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    Err(io::Error::other(format!(
        "{name} is not built: use --build"
    )))
}

/// Runs one target for a while, and adds up what it has run.
fn sitting(
    target: &Target,
    wanted: u64,
    left: Option<Duration>,
    tally: &mut Tally,
) -> io::Result<()> {
    let fuzz = root().join("fuzz");
    let [corpus, seeds, artifacts] =
        ["corpus", "seeds", "artifacts"].map(|folder| fuzz.join(folder).join(target.name));
    let logs = root().join("target/fuzz-logs");
    for folder in [&corpus, &seeds, &artifacts, &logs] {
        fs::create_dir_all(folder)?;
    }
    let log = logs.join(format!("{}.log", target.name));
    tally.last_seed += 1;
    let runs = (wanted - tally.runs).min(SLICE);
    let seconds = left.map_or(SLICE_SECONDS, |left| left.as_secs().min(SLICE_SECONDS));
    let begun = Instant::now();
    let ended = Command::new(binary(target.name)?)
        .arg(format!("-runs={runs}"))
        .arg(format!("-max_total_time={}", seconds.max(1)))
        .arg(format!("-max_len={}", target.input_bytes_max))
        .arg(format!("-seed={}", tally.last_seed))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        // By the wall clock, and a campaign gives way to whatever else runs: not what an input takes.
        .args(["-timeout=600", "-rss_limit_mb=2048", "-print_final_stats=1"])
        // Large buffers come and go with every input: asking the system for each takes a quarter of
        // the time. Of GNU's allocator; others do not look.
        .env("MALLOC_MMAP_THRESHOLD_", "268435456")
        .env("MALLOC_TRIM_THRESHOLD_", "536870912")
        .env("MALLOC_TOP_PAD_", "16777216")
        .arg(&corpus)
        .arg(seeds)
        .stdout(Stdio::null())
        .stderr(File::create(&log)?)
        .status()?;
    tally.seconds += begun.elapsed().as_secs_f64();
    let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    let counted = said
        .lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))
        .and_then(|count| count.trim().parse::<u64>().ok());
    let Some(counted) = counted else {
        let what = format!(
            "{} has not said what it ran: see {}",
            target.name,
            log.display()
        );
        return Err(io::Error::other(what));
    };
    tally.runs += counted;
    if ended.code() == Some(INTERRUPTED) {
        tally.is_interrupted = true;
    } else if !ended.success() {
        tally.findings += 1;
        tally.open_findings = 1;
        fs::rename(&log, log.with_extension("found.log"))?;
    }
    Ok(())
}

/// The line of one target: for people, and for the record.
fn report(target: &Target, tally: &Tally, options: &Options) -> io::Result<()> {
    // As the page of figures tells them apart.
    let name = match target.is_open_to_all() {
        true => format!("fuzz-client-{}", target.name),
        false => format!("fuzz-{}", target.name),
    };
    let million = |runs: u64| runs as f64 / 1e6;
    say(&format!(
        "{name}: {:.1} of {:.1} million executions, seeds 1..{}, {} violations\n",
        million(tally.runs),
        million(wanted(target, options)),
        tally.last_seed,
        tally.open_findings,
    ));
    // Nothing run proves nothing, and is no figure.
    let Some(record) = options.record.as_ref().filter(|_| tally.runs > 0) else {
        return Ok(());
    };
    let mut notes = Vec::new();
    if tally.findings > 0 {
        notes.push(format!("{} found on the way", tally.findings));
    }
    if tally.runs < target.runs {
        notes.push(format!("{} million wanted", million(target.runs)));
    }
    let note = notes.join("; ");
    let figure = serde_json::json!({
        "name": name,
        "date": today(),
        "commit": tally.commit,
        "command": format!("cargo run -p quorate-fuzz-targets --bin campaign -- --build {}", target.name),
        "count": tally.runs as f64,
        "unit": "executions",
        "seeds": format!("1..{}", tally.last_seed),
        "violations": tally.open_findings,
        "seconds": tally.seconds.round(),
        "note": note,
    });
    let mut file = OpenOptions::new().create(true).append(true).open(record)?;
    file.write_all(format!("{figure}\n").as_bytes())
}

/// The date in UTC, as in 2026-11-22.
fn today() -> String {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mut days = since.as_secs() / 86_400;
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", days + 1)
}

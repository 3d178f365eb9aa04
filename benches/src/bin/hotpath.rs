//! Measures the crypto hot path against its peers and its bars.
//!
//! Prints a table and the ratios (`--json`: as JSON) and exits with 1 if a ratio
//! is below its bar; goals beyond the bars are shown and do not count. Bars that
//! suppose VAES are left out, and that is said, where the processor has none.

use std::process::ExitCode;
use std::time::Duration;

use benches::cases::{Direction, streams, xts};
use benches::measure::{Case, Speeds, interleaved};
use clap::Parser;
use crypto::chunk::Algorithm;
use crypto::kernel::Kernel;
use crypto::sector::SectorSize;
use serde::Serialize;

/// Measure the crypto hot path against its peers and its bars.
#[derive(Parser)]
struct Options {
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
    /// Rounds to take the median of.
    #[arg(long, default_value_t = 31)]
    rounds: usize,
    /// How long each case runs in a round.
    #[arg(long, default_value_t = 3, value_name = "MS")]
    slice_ms: u64,
}

#[derive(Serialize)]
struct Report {
    machine: String,
    kernel: &'static str,
    speeds: Vec<Row>,
    ratios: Vec<Ratio>,
    met: bool,
}

/// One case's median speed.
#[derive(Serialize)]
struct Row {
    group: String,
    case: String,
    gb_per_s: f64,
}

/// One ratio and what it must be, or is hoped to be.
#[derive(Serialize)]
struct Ratio {
    what: String,
    ratio: f64,
    bar: f64,
    /// Shown, and does not decide how the run ends.
    is_goal: bool,
    met: bool,
}

/// Cases timed in the same rounds, by the names `group/case`.
struct Run(Vec<Speeds>);

impl Run {
    fn time(mut cases: Vec<Case>, options: &Options) -> Self {
        let slice = Duration::from_millis(options.slice_ms);
        Self(interleaved(&mut cases, options.rounds, slice))
    }

    /// # Panics
    /// If there is no such case: a bar must not vanish with a name.
    fn ratio(&self, ours: &str, theirs: &str, bar: f64) -> Ratio {
        let find = |name: &str| {
            let found = self.0.iter().find(|speeds| speeds.name == name);
            found.unwrap_or_else(|| panic!("no case is called {name}"))
        };
        let ratio = find(ours).ratio(find(theirs));
        Ratio {
            what: format!("{ours} / {theirs}"),
            ratio,
            bar,
            is_goal: false,
            met: ratio >= bar,
        }
    }

    fn goal(&self, ours: &str, theirs: &str, goal: f64) -> Ratio {
        Ratio {
            is_goal: true,
            ..self.ratio(ours, theirs, goal)
        }
    }

    fn rows(&self) -> impl Iterator<Item = Row> {
        self.0.iter().map(|speeds| {
            let (group, case) = speeds.name.split_once('/').unwrap_or(("", &speeds.name));
            Row {
                group: group.to_owned(),
                case: case.to_owned(),
                gb_per_s: speeds.median(),
            }
        })
    }
}

fn named(group: &str, cases: Vec<Case>) -> impl Iterator<Item = Case> {
    cases.into_iter().map(move |case| Case {
        name: format!("{group}/{}", case.name),
        ..case
    })
}

fn main() -> ExitCode {
    let options = Options::parse();
    let chosen = Kernel::detect();
    let mut speeds = Vec::new();
    let mut ratios = Vec::new();

    for direction in Direction::BOTH {
        let d = direction.name();
        let (small, large) = (format!("xts-512-{d}"), format!("xts-4096-{d}"));
        let mut cases: Vec<Case> = named(&small, xts(SectorSize::B512, direction)).collect();
        cases.extend(named(&large, xts(SectorSize::B4096, direction)));
        let run = Run::time(cases, &options);
        let own = chosen.name();
        if chosen == Kernel::Vaes512 {
            let (small, large) = (format!("{small}/"), format!("{large}/"));
            let ours = format!("{large}{own}");
            for (ours, theirs, bar, goal) in [
                (&ours, format!("{large}aws-lc"), 1.0, 1.05),
                (&ours, format!("{large}aes-ecb"), 0.75, 0.90),
                (&format!("{small}{own}"), format!("{small}aws-lc"), 1.5, 2.0),
                (&format!("{small}{own}"), ours.clone(), 0.85, 0.95),
            ] {
                ratios.push(run.ratio(ours, &theirs, bar));
                ratios.push(run.goal(ours, &theirs, goal));
            }
        }
        speeds.extend(run.rows());
    }
    for (algorithm, label, bar, goal) in [
        (Algorithm::Aes256Gcm, "gcm", 0.94, 0.98),
        (Algorithm::Aes256GcmSiv, "gcm-siv", 1.9, 2.5),
    ] {
        for direction in Direction::BOTH {
            let group = format!("{label}-{}", direction.name());
            let cases = named(&group, streams(algorithm, direction)).collect();
            let run = Run::time(cases, &options);
            // Both sides of GCM are AWS-LC's; the kernel of GCM-SIV is ours, and made for VAES on 512 bits.
            if algorithm == Algorithm::Aes256Gcm || chosen == Kernel::Vaes512 {
                let (ours, raw) = (format!("{group}/stream"), format!("{group}/aws-lc-rs"));
                ratios.push(run.ratio(&ours, &raw, bar));
                ratios.push(run.goal(&ours, &raw, goal));
            }
            speeds.extend(run.rows());
        }
    }

    let report = Report {
        machine: machine(),
        kernel: chosen.name(),
        met: ratios.iter().all(|ratio| ratio.met || ratio.is_goal),
        speeds,
        ratios,
    };
    if options.json {
        let text = serde_json::to_string_pretty(&report).expect("numbers and strings are JSON");
        println!("{text}");
    } else {
        print(&report);
    }
    if report.met {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn print(report: &Report) {
    println!("{}; kernel {}", report.machine, report.kernel);
    if report.kernel != Kernel::Vaes512.name() {
        println!(
            "This processor has no VAES on 512 bits: bars that suppose it are left out, what is \
             there is compared."
        );
    }
    let mut group = "";
    for row in &report.speeds {
        if row.group != group {
            group = &row.group;
            println!("\n{group}, GB/s");
        }
        println!("  {:<12}{:>8.2}", row.case, row.gb_per_s);
    }
    println!("\nratios (median over interleaved rounds)");
    for ratio in &report.ratios {
        let verdict = match (ratio.met, ratio.is_goal) {
            (true, _) => "ok",
            (false, true) => "short of the goal",
            (false, false) => "BELOW THE BAR",
        };
        println!(
            "  {:<44}{:>7.2}  >= {:<5} {verdict}",
            ratio.what, ratio.ratio, ratio.bar
        );
    }
}

/// The processor's name, where the system tells it.
fn machine() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or_else(
            || "unknown processor".to_owned(),
            |(_, name)| name.to_owned(),
        )
}

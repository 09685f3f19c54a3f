//! The one place of the demo that prints.

use std::io::{IsTerminal as _, Write as _};

use crate::bank::{Admission, CallReport};

/// Whether to colour the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Color {
    /// If standard output is a terminal and `NO_COLOR` is not set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Where the lines go.
#[derive(Debug)]
enum Target {
    Stdout,
    Memory(Vec<String>),
}

/// Prints what happens, one aligned line for each branch call.
#[derive(Debug)]
pub struct Printer {
    color: bool,
    target: Target,
}

/// The few styles the demo uses.
#[derive(Clone, Copy)]
enum Style {
    Bold,
    Dim,
    Green,
    Red,
    Yellow,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Green => "32",
            Self::Red => "31",
            Self::Yellow => "33",
        }
    }
}

impl Printer {
    /// Prints to standard output.
    #[must_use]
    pub fn stdout(color: Color) -> Self {
        let color = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                std::io::stdout().is_terminal()
                    && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        };
        Self { color, target: Target::Stdout }
    }

    /// Keeps the lines instead of printing them, without colour.
    #[must_use]
    pub fn memory() -> Self {
        Self { color: false, target: Target::Memory(Vec::new()) }
    }

    /// The lines that were kept; empty for a printer to standard output.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        match &self.target {
            Target::Stdout => &[],
            Target::Memory(lines) => lines,
        }
    }

    /// Prints one line as it is.
    pub fn line(&mut self, text: &str) {
        match &mut self.target {
            Target::Memory(lines) => lines.push(text.to_owned()),
            Target::Stdout => {
                let mut stdout = std::io::stdout().lock();
                // A reader that went away (`dtmd demo | head`) does not change what is tested.
                let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
            }
        }
    }

    /// Prints a scenario's header.
    pub fn header(&mut self, mode: &str, title: &str) {
        let head = self.paint(Style::Bold, &format!("{mode} · {title}"));
        self.line("");
        self.line(&head);
    }

    /// Prints a remark about what is done next.
    pub fn note(&mut self, text: &str) {
        let text = self.paint(Style::Dim, &format!("  {text}"));
        self.line(&text);
    }

    /// Prints one branch call as a bank reports it.
    pub fn call(&mut self, report: &CallReport) {
        let (style, outcome) = match (report.outcome.as_str(), report.admission) {
            ("success", Some(admission @ (Admission::Duplicate | Admission::Hanging))) => {
                (Style::Yellow, admission.as_str())
            }
            ("success", Some(Admission::NullCompensation)) => (Style::Yellow, "null compensation"),
            ("success", _) => (Style::Green, "success"),
            ("failure", _) => (Style::Red, "failure"),
            (other, _) => (Style::Yellow, other),
        };
        let outcome = self.paint(style, &format!("{outcome:<17}"));
        let took = self.paint(Style::Dim, &format!("{:>7.1} ms", report.ms));
        let note = report.note.as_deref().or(match report.admission {
            Some(Admission::Hanging) => Some("came after its undo, kept out"),
            Some(Admission::NullCompensation) => Some("nothing to undo"),
            _ => None,
        });
        let note = note.map(|note| self.paint(Style::Dim, &format!("  {note}")));
        let line = format!(
            "  {:<10} {:<10} {:<4} {:<26} {outcome} {took}{}",
            report.bank,
            report.op,
            report.branch_id,
            what_was_done(report),
            note.unwrap_or_default()
        );
        self.line(line.trim_end());
    }

    /// Prints the end of a scenario.
    pub fn end(&mut self, status: &str, text: &str) {
        let style = if status == "succeed" { Style::Green } else { Style::Red };
        let status = self.paint(style, status);
        let text = self.paint(Style::Dim, text);
        self.line(&format!("  → {status}  {text}"));
    }

    /// Prints that all is well.
    pub fn good(&mut self, text: &str) {
        let text = self.paint(Style::Green, text);
        self.line(&text);
    }

    /// Prints that something is wrong.
    pub fn bad(&mut self, text: &str) {
        let text = self.paint(Style::Red, text);
        self.line(&text);
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if self.color { format!("\x1b[{}m{text}\x1b[0m", style.code()) } else { text.to_owned() }
    }
}

/// What the call meant to do, in few words: `debit alice 30`.
fn what_was_done(report: &CallReport) -> String {
    let verb = match report.path.as_str() {
        "/out" | "/local-out" => "debit",
        "/out-undo" => "give back to",
        "/in" => "credit",
        "/in-undo" => "take back from",
        "/try-out" => "freeze",
        "/confirm-out" => "debit frozen",
        "/cancel-out" => "unfreeze",
        "/try-in" => "announce to",
        "/confirm-in" => "credit announced",
        "/cancel-in" => "forget announced",
        "/query-prepared" => "did it commit?",
        "/xa-out" if report.op == "action" => "debit",
        "/xa-in" if report.op == "action" => "credit",
        "/xa-out" | "/xa-in" => "the prepared one",
        other => other,
    };
    match (&report.account, report.amount) {
        (Some(account), Some(amount)) => format!("{verb} {account} {amount}"),
        _ => verb.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outcome: &str, admission: Option<Admission>) -> CallReport {
        CallReport {
            bank: "a".to_owned(),
            gid: "g".to_owned(),
            trans_type: "saga".to_owned(),
            branch_id: "01".to_owned(),
            op: "action".to_owned(),
            path: "/out".to_owned(),
            account: Some("alice".to_owned()),
            amount: Some(30),
            outcome: outcome.to_owned(),
            admission,
            note: None,
            ms: 1.25,
        }
    }

    #[test]
    fn a_call_is_one_aligned_line() {
        let mut printer = Printer::memory();
        printer.call(&report("success", Some(Admission::Run)));
        printer.call(&report("success", Some(Admission::Hanging)));
        printer.call(&report("failure", None));
        let lines = printer.lines();
        assert!(
            lines[0].starts_with("  a          action     01   debit alice 30             success")
        );
        assert!(lines[1].contains("hanging") && lines[1].ends_with("kept out"));
        let at = |line: &str| line.find(" ms").unwrap();
        assert_eq!(at(&lines[0]), at(&lines[2]));
        assert!(lines.iter().all(|line| !line.contains('\x1b')));
    }

    #[test]
    fn colour_is_closed_again() {
        let printer = Printer { color: true, target: Target::Stdout };
        assert_eq!(printer.paint(Style::Red, "x"), "\x1b[31mx\x1b[0m");
    }
}

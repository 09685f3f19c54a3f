//! Running a server: its directory, its clock, its disk, its end, its command line, its slow clients.

mod clients;
mod clock;
mod commands;
mod disk;
mod fsync;
mod outage;
mod process;

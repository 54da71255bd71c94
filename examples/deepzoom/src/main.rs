//! The program by itself.

fn main() -> std::process::ExitCode {
    deepzoom::main()
}

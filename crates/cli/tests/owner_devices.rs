//! Owners at the machine's own devices: a virtual machine with a kernel of its own, in which a real grid runs and
//! hands use devices of every kind.

mod common;

use common::doctor_as_nobody;
use common::scene::Scene;
use evdev::uinput::VirtualDevice;
use evdev::{
    AbsInfo, AbsoluteAxisCode, AttributeSet, EventType, InputEvent, KeyCode, PropType,
    RelativeAxisCode, UinputAbsSetup,
};
use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Set within the virtual machine.
const GUEST: &str = "HEDGE_TEST_GUEST";
/// Its name, by which the virtual machine runs it again.
const TEST: &str = "hands_at_every_kind_of_device_stop_the_worker_and_tell_the_supervisor";
/// A debug build in a machine without hardware support takes minutes.
const SECONDS_MAX: &str = "1500";
const MOVES_EVERY: Duration = Duration::from_millis(100);

#[test]
fn hands_at_every_kind_of_device_stop_the_worker_and_tell_the_supervisor() {
    if std::env::var_os(GUEST).is_some() {
        every_kind();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let kernel = Kernel::find();
    let initrd = initrd(folder.path(), &kernel);
    let output = Command::new("timeout")
        .args([SECONDS_MAX, "qemu-system-x86_64", "-nographic"])
        // Not the hardware's support: where this is a virtual machine itself, that is often half there.
        .args(["-accel", "tcg", "-cpu", "max", "-smp", "2"])
        .args(["-m", "3072", "-nic", "none", "-no-reboot", "-kernel"])
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", "console=ttyS0 quiet panic=-1"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(
        said.contains("guest ended with 0"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Within the virtual machine.
fn every_kind() {
    let mut hands = hands();
    denied_to_ordinary_users();
    let mut scene = Scene::new(&[], "", &["evdev"], "");
    scene.back();
    for (name, why, device, events) in &mut hands {
        println!("{name}");
        using(device, events, || scene.away(why));
        scene.back();
    }
    // And with something at work.
    let (job, _) = scene.run();
    let (_, why, device, events) = &mut hands[0];
    using(device, events, || {
        scene.away(why);
        scene.marks.await_starts("t", 2);
    });
    scene.marks.let_go("t");
    assert_eq!(scene.grid.place.wait(&job)["state"], "done");
}

/// The kernel's devices are not for everybody: the doctor says so, and what mends it.
fn denied_to_ordinary_users() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    let found = doctor_as_nobody(folder.path(), &[("DISPLAY", "")]);
    let of = |what: &str| {
        let finding = found.iter().find(|finding| finding["what"] == what);
        finding
            .unwrap_or_else(|| panic!("{what}: {found:?}"))
            .clone()
    };
    assert_eq!(of("evdev")["verdict"], "reduced", "{found:?}");
    let mend = of("evdev")["advice"].to_string();
    assert!(mend.contains("usermod --append --groups input"), "{mend}");
    assert_eq!(of("keyboard")["found"], "not noticed");
    let input = of("owner's input")["found"].to_string();
    assert!(input.contains("no source of input"), "{input}");
}

/// Uses a device again and again for as long as `meanwhile` takes.
fn using(device: &mut VirtualDevice, events: &[Vec<InputEvent>], meanwhile: impl FnOnce()) {
    let (stop, stopped) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for events in events.iter().cycle() {
                device.emit(events).unwrap();
                if stopped.recv_timeout(MOVES_EVERY) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        // Dropped on a panic too, which lets the scope end.
        let _stop = stop;
        meanwhile();
    });
}

/// A device's name, the kind that it is to be known by, and how it is used by turns.
type Used = (
    &'static str,
    &'static str,
    VirtualDevice,
    Vec<Vec<InputEvent>>,
);

fn hands() -> Vec<Used> {
    let mut hands = hands_that_move();
    hands.extend(hands_that_point());
    hands
}

fn hands_that_move() -> Vec<Used> {
    let key = |code: KeyCode, value: i32| InputEvent::new(EventType::KEY.0, code.0, value);
    let rel = |value: i32| InputEvent::new(EventType::RELATIVE.0, RelativeAxisCode::REL_X.0, value);
    let pressed = |code| vec![vec![key(code, 1)], vec![key(code, 0)]];
    let moved = vec![vec![rel(3)], vec![rel(-3)]];
    let letters: Vec<KeyCode> = (1..100).map(KeyCode).collect();
    let left = KeyCode::BTN_LEFT;
    let keyboard = device("keyboard", &letters, false, &[], &[]);
    let mouse = device("mouse", &[left], true, &[], &[]);
    let second = device("second mouse", &[left], true, &[], &[]);
    let stick = device("stick", &[left], true, &[], &[PropType::POINTING_STICK]);
    vec![
        ("a keyboard", "keyboard", keyboard, pressed(KeyCode::KEY_A)),
        ("a mouse", "mouse", mouse, moved.clone()),
        ("a mouse's button", "mouse", second, pressed(left)),
        ("a pointing stick", "pointer", stick, moved),
    ]
}

fn hands_that_point() -> Vec<Used> {
    let abs =
        |code: AbsoluteAxisCode, value: i32| InputEvent::new(EventType::ABSOLUTE.0, code.0, value);
    let (x, y) = (AbsoluteAxisCode::ABS_X, AbsoluteAxisCode::ABS_Y);
    let many_x = AbsoluteAxisCode::ABS_MT_POSITION_X;
    let many_y = AbsoluteAxisCode::ABS_MT_POSITION_Y;
    let to = |at: i32| vec![abs(x, at), abs(y, at)];
    let slid = vec![to(100), to(200)];
    let (left, finger) = (KeyCode::BTN_LEFT, KeyCode::BTN_TOOL_FINGER);
    let (touch, pen) = (KeyCode::BTN_TOUCH, KeyCode::BTN_TOOL_PEN);
    let many = [x, y, many_x, many_y];
    let pad = device(
        "pad",
        &[left, finger, touch],
        false,
        &many,
        &[PropType::POINTER],
    );
    let pen = device(
        "pen",
        &[pen, KeyCode::BTN_STYLUS, touch],
        false,
        &[x, y],
        &[],
    );
    let tablet = device("tablet", &[left], false, &[x, y], &[]);
    let screen = device("screen", &[touch], false, &many, &[PropType::DIRECT]);
    vec![
        ("a touchpad", "pointer", pad, slid.clone()),
        ("a stylus", "pointer", pen, slid.clone()),
        ("an absolute pointer", "pointer", tablet, slid.clone()),
        ("a touchscreen", "touchscreen", screen, slid),
    ]
}

fn device(
    name: &str,
    keys: &[KeyCode],
    moves: bool,
    absolute: &[AbsoluteAxisCode],
    properties: &[PropType],
) -> VirtualDevice {
    let keys: AttributeSet<KeyCode> = keys.iter().copied().collect();
    let properties: AttributeSet<PropType> = properties.iter().copied().collect();
    let mut builder = VirtualDevice::builder()
        .unwrap()
        .name(name)
        .with_keys(&keys)
        .unwrap()
        .with_properties(&properties)
        .unwrap();
    if moves {
        let relative: AttributeSet<RelativeAxisCode> =
            [RelativeAxisCode::REL_X, RelativeAxisCode::REL_Y]
                .into_iter()
                .collect();
        builder = builder.with_relative_axes(&relative).unwrap();
    }
    for axis in absolute {
        let info = AbsInfo::new(0, 0, 1000, 0, 0, 1);
        builder = builder
            .with_absolute_axis(&UinputAbsSetup::new(*axis, info))
            .unwrap();
    }
    builder.build().unwrap()
}

/// What `cargo xtask test` has unpacked.
struct Kernel {
    image: PathBuf,
    modules: Vec<PathBuf>,
}

impl Kernel {
    fn find() -> Kernel {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guest-kernel");
        let output = Command::new("find")
            .arg(&folder)
            .args([
                "-name",
                "vmlinuz*",
                "-o",
                "-name",
                "evdev.ko*",
                "-o",
                "-name",
                "uinput.ko*",
            ])
            .output()
            .unwrap();
        let found = String::from_utf8(output.stdout).unwrap();
        let (image, modules): (Vec<_>, Vec<_>) = found
            .lines()
            .map(PathBuf::from)
            .partition(|path| path.to_str().unwrap().contains("vmlinuz"));
        assert!(
            image.len() == 1 && modules.len() == 2,
            "no kernel in {}: `cargo xtask test` unpacks one: {found}",
            folder.display()
        );
        Kernel {
            image: image[0].clone(),
            modules,
        }
    }
}

/// The virtual machine's whole file system: this program, `hedge`, a shell, and what they are linked to.
fn initrd(folder: &Path, kernel: &Kernel) -> PathBuf {
    let root = folder.join("root");
    let put = |from: &Path, to: &Path| {
        let to = root.join(to.strip_prefix("/").unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, &to).unwrap();
        to
    };
    let own = std::env::current_exe().unwrap();
    let hedge = Path::new(env!("CARGO_BIN_EXE_hedge"));
    for program in [own.as_path(), hedge] {
        let copy = put(program, program);
        let stripped = Command::new("strip").arg(&copy).status();
        assert!(stripped.unwrap().success());
    }
    for library in libraries(&[&own, hedge]) {
        put(&library, &library);
    }
    put(Path::new("/bin/busybox"), Path::new("/bin/busybox"));
    let mut load = String::new();
    for module in &kernel.modules {
        let name = Path::new("/modules").join(module.file_name().unwrap());
        put(module, &name);
        load += &format!("insmod {}\n", name.display());
    }
    let here = env!("CARGO_MANIFEST_DIR");
    for made in ["proc", "sys", "dev", "tmp", here.trim_start_matches('/')] {
        fs::create_dir_all(root.join(made)).unwrap();
    }
    let init = format!(
        "#!/bin/busybox sh\n/bin/busybox --install -s /bin\nexport PATH=/bin HOME=/tmp {GUEST}=1\n\
         mount -t proc proc /proc\nmount -t sysfs sys /sys\nmount -t devtmpfs dev /dev\n\
         ip link set lo up\n{load}cd {here}\n\
         {} --exact {TEST} --nocapture 2>&1\necho \"guest ended with $?\"\npoweroff -f\n",
        own.display()
    );
    let path = root.join("init");
    fs::write(&path, init).unwrap();
    let initrd = folder.join("initrd");
    let pack = format!(
        "chmod 755 init && find . | busybox cpio -o -H newc > '{}'",
        initrd.display()
    );
    let packed = Command::new("sh")
        .args(["-c", &pack])
        .current_dir(&root)
        .status();
    assert!(packed.unwrap().success());
    initrd
}

fn libraries(programs: &[&Path]) -> BTreeSet<PathBuf> {
    let output = Command::new("ldd").args(programs).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
    let libraries = paths.filter(|word| !word.ends_with(':'));
    libraries.map(PathBuf::from).collect()
}

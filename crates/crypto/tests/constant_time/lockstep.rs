//! Runs one function on several secrets, instruction by instruction, side by side.
//!
//! A process is forked for each secret, so all of them have the same memory map,
//! stack and heap. They are then single-stepped together (ptrace), and at each step
//! the instruction pointers, the addresses of every memory operand, and the operands
//! of a division (whose time depends on them) must agree. Where they do not, time
//! depended on the secret. Gathers, whose addresses sit in vector registers, are
//! refused outright.
//!
//! What this shows holds for the machine code that was built and the path that was
//! taken. What it does not show: that the processor's instructions take the same time
//! whatever their operands, which for AES, carry-less multiplication, shifts and xors
//! is what vendors promise; nor how many lanes a masked load or store touches (AWS-LC
//! and libc mask by length, we not at all); nor anything about speculation.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

/// Longest instruction of x86-64.
const INSTRUCTION_MAX: usize = 15;

/// Runs `run` over what `prepare` makes of each of `secrets` numbers, in lockstep;
/// returns how many instructions that were.
///
/// `prepare` must allocate the same whatever its argument.
///
/// # Panics
/// At the first instruction that is not the same, or touches another address.
pub(crate) fn run<T>(secrets: usize, prepare: impl Fn(usize) -> T, run: impl Fn(&mut T)) -> usize {
    // Once here, so that no child finds a lock held by a thread that it does not have.
    run(&mut prepare(0));
    let run = &run;
    let mut children: Vec<Child> = Vec::with_capacity(secrets);
    for secret in 0..secrets {
        children.push(Child::fork(|| {
            let mut subject = prepare(secret);
            move || {
                breakpoint();
                run(&mut subject);
                breakpoint();
            }
        }));
    }
    for child in &children {
        child.wait_for_trap();
        child.kill_with_parent();
    }
    let code = File::open("/proc/self/mem").expect("own memory is readable");
    let mut decoded = HashMap::new();
    for step in 0.. {
        let registers: Vec<libc::user_regs_struct> =
            children.iter().map(Child::registers).collect();
        let first = &registers[0];
        for other in &registers[1..] {
            assert_eq!(
                first.rip,
                other.rip,
                "step {step}: a branch depends on the secret, before {}",
                place(first.rip)
            );
        }
        let instruction = decoded
            .entry(first.rip)
            .or_insert_with(|| decode(&code, first.rip));
        if instruction.code() == Code::Int3 {
            assert!(step > 0, "nothing ran");
            return step;
        }
        let addresses = touched(instruction, first);
        let divided = divided(instruction, first, &children[0]);
        for (other, child) in registers.iter().zip(&children) {
            let at = || format!("{:?} at {}", instruction.code(), place(first.rip));
            assert_eq!(
                addresses,
                touched(instruction, other),
                "step {step}: an address depends on the secret, {}",
                at()
            );
            assert_eq!(
                divided,
                self::divided(instruction, other, child),
                "step {step}: a division depends on the secret, {}",
                at()
            );
        }
        for child in &children {
            child.step();
        }
    }
    unreachable!("steps are counted without end")
}

fn decode(code: &File, rip: u64) -> Instruction {
    let mut bytes = [0; INSTRUCTION_MAX];
    let read = code.read_at(&mut bytes, rip).expect("code is mapped");
    Decoder::with_ip(64, &bytes[..read], rip, DecoderOptions::NONE).decode()
}

/// The addresses of an instruction's memory operands, the stack's among them.
fn touched(instruction: &Instruction, registers: &libc::user_regs_struct) -> [u64; 4] {
    let at = || format!("{:?} at {}", instruction.code(), place(instruction.ip()));
    assert!(!instruction.is_vsib(), "a gather: {}", at());
    let mut addresses = [0; 4];
    addresses[3] = registers.rsp;
    // `lea` computes an address and touches nothing.
    if instruction.mnemonic() == Mnemonic::Lea {
        return addresses;
    }
    for (operand, address) in (0..instruction.op_count()).zip(&mut addresses) {
        if is_memory(instruction.op_kind(operand)) {
            *address = instruction
                .virtual_address(operand, 0, |register, _, _| value(register, registers))
                .unwrap_or_else(|| panic!("an address that cannot be computed: {}", at()));
        }
    }
    addresses
}

/// What is divided by what, if the instruction divides.
fn divided(
    instruction: &Instruction,
    registers: &libc::user_regs_struct,
    child: &Child,
) -> Option<[u64; 3]> {
    if !matches!(instruction.mnemonic(), Mnemonic::Div | Mnemonic::Idiv) {
        return None;
    }
    let divisor = if instruction.op0_kind() == OpKind::Register {
        value(instruction.op0_register().full_register(), registers)
    } else {
        touched(instruction, registers)
            .first()
            .map(|address| child.word(*address))
    };
    let divisor = divisor.expect("a divisor is in a register or in memory");
    Some([registers.rax, registers.rdx, divisor])
}

fn is_memory(kind: OpKind) -> bool {
    !matches!(
        kind,
        OpKind::Register
            | OpKind::NearBranch16
            | OpKind::NearBranch32
            | OpKind::NearBranch64
            | OpKind::FarBranch16
            | OpKind::FarBranch32
            | OpKind::Immediate8
            | OpKind::Immediate8_2nd
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64
    )
}

fn value(register: Register, registers: &libc::user_regs_struct) -> Option<u64> {
    Some(match register {
        Register::RAX => registers.rax,
        Register::RBX => registers.rbx,
        Register::RCX => registers.rcx,
        Register::RDX => registers.rdx,
        Register::RSI => registers.rsi,
        Register::RDI => registers.rdi,
        Register::RBP => registers.rbp,
        Register::RSP => registers.rsp,
        Register::R8 => registers.r8,
        Register::R9 => registers.r9,
        Register::R10 => registers.r10,
        Register::R11 => registers.r11,
        Register::R12 => registers.r12,
        Register::R13 => registers.r13,
        Register::R14 => registers.r14,
        Register::R15 => registers.r15,
        Register::FS => registers.fs_base,
        Register::GS => registers.gs_base,
        Register::CS | Register::DS | Register::ES | Register::SS => 0,
        _ => return None,
    })
}

/// An address as `addr2line` and `objdump` take it.
fn place(address: u64) -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for line in maps.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [range, _, offset, _, _, file] = fields[..] else {
            continue;
        };
        let number = |text| u64::from_str_radix(text, 16).unwrap_or_default();
        let Some((start, end)) = range.split_once('-') else {
            continue;
        };
        if (number(start)..number(end)).contains(&address) {
            let offset = address - number(start) + number(offset);
            return format!("{address:#x} (file offset {offset:#x} of {file})");
        }
    }
    format!("{address:#x}")
}

/// Stops the process for its tracer.
#[inline(always)]
fn breakpoint() {
    // SAFETY: `int3` touches no memory and no register; a tracer catches it.
    unsafe { std::arch::asm!("int3") };
}

/// A forked process under trace; killed on drop.
struct Child {
    pid: libc::pid_t,
    /// It ended by itself, and its number may be another's.
    ended: Cell<bool>,
}

impl Child {
    /// Forks; in the child `prepare` runs untraced, what it returns traced.
    fn fork<R: FnOnce()>(prepare: impl FnOnce() -> R) -> Self {
        // SAFETY: the child runs only `prepare` and its result on this one thread, and then
        // ends without returning. The allocator is fork-safe in glibc; what is set up once a
        // process (which instructions there are, AWS-LC's own state) has been set up in the
        // parent, which is no more in the middle of it: see `run`.
        match unsafe { libc::fork() } {
            -1 => panic!("fork: {}", io::Error::last_os_error()),
            0 => {
                // A panic must not unwind into the test runner's copy.
                struct End;
                impl Drop for End {
                    fn drop(&mut self) {
                        // SAFETY: ends the process, without destructors.
                        unsafe { libc::_exit(1) }
                    }
                }
                let _end = End;
                let traced = prepare();
                trace(libc::PTRACE_TRACEME, 0, 0, 0);
                traced();
                unreachable!("the tracer ends the process at the second breakpoint")
            }
            pid => Self {
                pid,
                ended: Cell::new(false),
            },
        }
    }

    fn wait_for_trap(&self) {
        let mut status = 0;
        // SAFETY: waits for a child of ours, `status` is valid for writing.
        let waited = unsafe { libc::waitpid(self.pid, &mut status, 0) };
        assert_eq!(waited, self.pid, "waitpid: {}", io::Error::last_os_error());
        self.ended
            .set(libc::WIFEXITED(status) || libc::WIFSIGNALED(status));
        assert!(
            libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGTRAP,
            "the traced process did not stop for a step but with status {status:#x}"
        );
    }

    fn kill_with_parent(&self) {
        let options = libc::PTRACE_O_EXITKILL as usize;
        trace(libc::PTRACE_SETOPTIONS, self.pid, 0, options);
    }

    fn registers(&self) -> libc::user_regs_struct {
        // SAFETY: a struct of integers, for which zeros are a value.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        let room = &raw mut registers as usize;
        trace(libc::PTRACE_GETREGS, self.pid, 0, room);
        registers
    }

    fn word(&self, address: u64) -> u64 {
        let mut bytes = [0; 8];
        let memory = File::open(format!("/proc/{}/mem", self.pid));
        let read = memory.and_then(|memory| memory.read_exact_at(&mut bytes, address));
        read.expect("a traced process's memory is readable");
        u64::from_le_bytes(bytes)
    }

    fn step(&self) {
        trace(libc::PTRACE_SINGLESTEP, self.pid, 0, 0);
        self.wait_for_trap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.ended.get() {
            return;
        }
        // SAFETY: a child of ours that has not been waited for, so the number is still its.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
    }
}

fn trace(request: libc::c_uint, pid: libc::pid_t, address: usize, data: usize) {
    // SAFETY: requests on a stopped child of ours (or on ourselves); where `data` is an
    // address, it is of room for what the request writes.
    let done = unsafe { libc::ptrace(request, pid, address, data) };
    assert_ne!(done, -1, "ptrace: {}", io::Error::last_os_error());
}

//! The shared object that programs load: `LD_PRELOAD` brings it in, its constructor starts the agent.
#![no_std]

use core::arch::{asm, global_asm};

/// What glibc calls before `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: unsafe extern "C" fn(i32, *const *const u8, *const *const u8) = constructor;

unsafe extern "C" fn constructor(_count: i32, _arguments: *const *const u8, environment: *const *const u8) {
    // SAFETY: glibc passes a constructor the program's environment.
    unsafe { tmem_agent::at_start(environment) };
    register_fork_handler();
}

extern "C" fn in_child() {
    tmem_agent::at_fork();
}

// Weak: where it is missing, children made by fork are served and not managed.
global_asm!(".weak __register_atfork");

fn register_fork_handler() {
    type Handler = Option<extern "C" fn()>;
    type Register = unsafe extern "C" fn(Handler, Handler, Handler, *const u8) -> i32;
    let address: usize;
    // SAFETY: reads the symbol's address from the table that the loader has filled.
    unsafe {
        asm!("mov {}, qword ptr [rip + __register_atfork@GOTPCREL]", out(reg) address, options(nostack, readonly));
    }
    if address == 0 {
        return;
    }
    // SAFETY: the symbol is glibc's function of that type.
    let register: Register = unsafe { core::mem::transmute(address) };
    // SAFETY: the handler may be called in any child; the object is never unloaded.
    unsafe { register(None, None, Some(in_child), core::ptr::null()) };
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    tmem_agent::fail_closed()
}

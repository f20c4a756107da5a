/* fibres: the stacks of a block's threads and the switch between them and the scheduler.
 *
 * AddressSanitizer is not told of the switches: nothing that runs on these stacks is built with it. */
#include <sys/mman.h>
#include <ucontext.h>

#include "tests/cuda_emulator/machine.h"

static const size_t GUARD_BYTES = 4096;

static void *scheduler; /* its stack pointer */

static void fibre_main() {
    machine_thread_main();
    fibre_yield();
}

#ifdef __x86_64__
/* Saves the registers that a call keeps and the stack pointer, then takes up those saved at `to`. */
extern "C" void emulator_switch(void **from, void *to);
asm(R"(
    .text
    .globl emulator_switch
    .type emulator_switch, @function
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size emulator_switch, .-emulator_switch
)");

static void first_frame(device_thread *thread) {
    void **top = reinterpret_cast<void **>(static_cast<char *>(thread->stack) + STACK_BYTES);
    *--top = nullptr; /* the alignment that a call leaves: 8 beyond a multiple of 16 */
    *--top = reinterpret_cast<void *>(fibre_main);
    for (int i = 0; i < 6; i++) *--top = nullptr;
    thread->stack_pointer = top;
}
static void switch_to(void **from, void *to) { emulator_switch(from, to); }
#else
/* The stack pointer is that of a ucontext_t, which is kept at the stack's far end. */
static void first_frame(device_thread *thread) {
    ucontext_t *context = static_cast<ucontext_t *>(thread->stack);
    getcontext(context);
    context->uc_stack.ss_sp = context + 1;
    context->uc_stack.ss_size = STACK_BYTES - sizeof *context;
    context->uc_link = nullptr;
    makecontext(context, fibre_main, 0);
    thread->stack_pointer = context;
}
static void switch_to(void **from, void *to) {
    static ucontext_t scheduler_context;
    ucontext_t *own = from == &scheduler ? &scheduler_context : static_cast<ucontext_t *>(*from);
    *from = own;
    swapcontext(own, static_cast<ucontext_t *>(to));
}
#endif

void fibre_prepare(device_thread *thread) {
    if (!thread->stack) {
        char *memory = static_cast<char *>(mmap(nullptr, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
                                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        if (memory == MAP_FAILED || mprotect(memory, GUARD_BYTES, PROT_NONE) != 0)
            emulator_fault("the host has no memory for the stack of a thread");
        thread->stack = memory + GUARD_BYTES;
    }
    first_frame(thread);
}

void fibre_resume(device_thread *thread) { switch_to(&scheduler, thread->stack_pointer); }

void fibre_yield() { switch_to(&machine.running->stack_pointer, scheduler); }

#include "textflag.h"

// A handler of SIGSEGV and SIGBUS that maps the page of the address, and lets the access be repeated.
// First, if that page is ·outer, it stores to ·inner, which may raise a signal in its turn.
// Called by the kernel: DI signal, SI siginfo, with si_addr at 16.
TEXT ·mendHandler(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	MOVQ 16(SI), DI
	ANDQ ·pageMask(SB), DI
	CMPQ DI, ·outer(SB)
	JNE  mend
	MOVQ ·inner(SB), AX
	MOVB $7, (AX)

mend:
	INCQ ·mended(SB)
	MOVQ ·pageLength(SB), SI
	MOVQ $3, DX
	MOVQ $0x32, R10
	MOVQ $-1, R8
	MOVQ $0, R9
	MOVQ $9, AX // mmap
	SYSCALL
	RET

// func mendHandlerPC() uintptr
TEXT ·mendHandlerPC(SB), NOSPLIT, $0-8
	LEAQ ·mendHandler(SB), AX
	MOVQ AX, ret+0(FP)
	RET

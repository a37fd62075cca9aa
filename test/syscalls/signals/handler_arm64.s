#include "textflag.h"

// A handler of SIGSEGV and SIGBUS that maps the page of the address, and lets the access be repeated.
// First, if that page is ·outer, it stores to ·inner, which may raise a signal in its turn.
// Called by the kernel: R0 signal, R1 siginfo, with si_addr at 16.
TEXT ·mendHandler(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	MOVD 16(R1), R0
	MOVD ·pageMask(SB), R2
	AND  R2, R0
	MOVD ·outer(SB), R2
	CMP  R2, R0
	BNE  mend
	MOVD ·inner(SB), R2
	MOVD $7, R3
	MOVB R3, (R2)

mend:
	MOVD ·mended(SB), R2
	ADD  $1, R2
	MOVD R2, ·mended(SB)
	MOVD ·pageLength(SB), R1
	MOVD $3, R2
	MOVD $0x32, R3
	MOVD $-1, R4
	MOVD $0, R5
	MOVD $222, R8 // mmap
	SVC
	RET

// func mendHandlerPC() uintptr
TEXT ·mendHandlerPC(SB), NOSPLIT, $0-8
	MOVD $·mendHandler(SB), R0
	MOVD R0, ret+0(FP)
	RET

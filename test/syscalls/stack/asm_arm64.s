#include "textflag.h"

// What is called by kit's Exec must leave alone the registers that its probe keeps its way back in: R19 to R22.

// func pushDown()
TEXT ·pushDown(SB), NOSPLIT|NOFRAME, $0-0
	MOVD ·params(SB), R0
	MOVD 0(R0), R1
	MOVD 8(R0), R2
	MOVD RSP, R3
	MOVD R1, RSP

next:
	// The stack pointer has to be aligned to 16 bytes, so each word takes two.
	MOVD.W R2, -16(RSP)
	SUBS   $2, R2, R2
	BGT    next
	MOVD   R3, RSP
	RET

// func loadOn()
TEXT ·loadOn(SB), NOSPLIT|NOFRAME, $0-0
	MOVD ·params(SB), R0
	MOVD 0(R0), R1
	MOVD 24(R0), R2
	MOVD RSP, R3
	MOVD R1, RSP
	MOVD (R2), R2
	MOVD R3, RSP
	RET

// func startThread()
TEXT ·startThread(SB), NOSPLIT|NOFRAME, $0-0
	MOVD ·params(SB), R9
	MOVD 0(R9), R1
	MOVD $0x250f00, R0
	MOVD $0, R2
	MOVD $0, R3
	ADD  $16, R9, R4
	MOVD $220, R8 // clone(flags, stack, 0, 0, &params[2])
	SVC
	CBZ  R0, thread
	RET

thread:
	// No way back: a fault of this thread is nobody's probe.
	MOVD ZR, R19
	MOVD ·params(SB), R9
	MOVD 8(R9), R2

down:
	MOVD.W R2, -16(RSP)
	SUBS   $2, R2, R2
	BGT    down
	MOVD   $0, R0
	MOVD   $93, R8 // exit(0)
	SVC
	BRK

// func pushDownPC() uintptr
TEXT ·pushDownPC(SB), NOSPLIT, $0-8
	MOVD $·pushDown(SB), R0
	MOVD R0, ret+0(FP)
	RET

// func loadOnPC() uintptr
TEXT ·loadOnPC(SB), NOSPLIT, $0-8
	MOVD $·loadOn(SB), R0
	MOVD R0, ret+0(FP)
	RET

// func startThreadPC() uintptr
TEXT ·startThreadPC(SB), NOSPLIT, $0-8
	MOVD $·startThread(SB), R0
	MOVD R0, ret+0(FP)
	RET

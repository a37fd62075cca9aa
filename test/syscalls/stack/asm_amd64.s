#include "textflag.h"

// What is called by kit's Exec must leave alone the registers that its probe keeps its way back in.

// func pushDown()
TEXT ·pushDown(SB), NOSPLIT|NOFRAME, $0-0
	MOVQ ·params(SB), AX
	MOVQ 0(AX), DX
	MOVQ 8(AX), CX
	MOVQ SP, BX
	MOVQ DX, SP

next:
	// As PUSHQ, of which the assembler wants to see as many POPQ.
	LEAQ -8(SP), SP
	MOVQ CX, 0(SP)
	DECQ CX
	JNZ  next
	MOVQ BX, SP
	RET

// func loadOn()
TEXT ·loadOn(SB), NOSPLIT|NOFRAME, $0-0
	MOVQ ·params(SB), AX
	MOVQ 0(AX), DX
	MOVQ 24(AX), CX
	MOVQ SP, BX
	MOVQ DX, SP
	MOVQ 0(CX), CX
	MOVQ BX, SP
	RET

// func startThread()
TEXT ·startThread(SB), NOSPLIT|NOFRAME, $0-0
	// The system call takes R11, where the probe has its stack pointer.
	MOVQ    R11, R9
	MOVQ    ·params(SB), BX
	MOVQ    0(BX), SI
	LEAQ    16(BX), R10
	MOVQ    $0x250f00, DI
	XORL    DX, DX
	XORL    R8, R8
	MOVL    $56, AX // clone(flags, stack, 0, &params[2], 0)
	SYSCALL
	TESTQ   AX, AX
	JEQ     thread
	MOVQ    R9, R11
	RET

thread:
	// No way back: a fault of this thread is nobody's probe.
	XORL R12, R12
	MOVQ 8(BX), CX

down:
	LEAQ    -8(SP), SP
	MOVQ    CX, 0(SP)
	DECQ    CX
	JNZ     down
	XORL    DI, DI
	MOVL    $60, AX // exit(0)
	SYSCALL
	INT     $3

// func pushDownPC() uintptr
TEXT ·pushDownPC(SB), NOSPLIT, $0-8
	LEAQ ·pushDown(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// func loadOnPC() uintptr
TEXT ·loadOnPC(SB), NOSPLIT, $0-8
	LEAQ ·loadOn(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// func startThreadPC() uintptr
TEXT ·startThreadPC(SB), NOSPLIT, $0-8
	LEAQ ·startThread(SB), AX
	MOVQ AX, ret+0(FP)
	RET

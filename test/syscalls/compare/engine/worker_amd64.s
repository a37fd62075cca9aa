#include "textflag.h"

// A probe announces itself in registers: R12 holds the word below, R13 where to go on after a fault, R11
// the stack pointer to go on with.
#define MARK $0x70726f6265646d6d

// func probe(op, addr, value uintptr) (result, signo, code, fault uintptr)
TEXT ·probe(SB), NOSPLIT|NOFRAME, $0-56
	MOVQ op+0(FP), CX
	MOVQ addr+8(FP), DX
	MOVQ value+16(FP), AX
	MOVQ $0, signo+32(FP)
	MOVQ $0, code+40(FP)
	MOVQ $0, fault+48(FP)
	LEAQ ·landed(SB), R13
	MOVQ SP, R11
	MOVQ MARK, R12
	CMPQ CX, $0
	JEQ  load8
	CMPQ CX, $1
	JEQ  store8
	CMPQ CX, $2
	JEQ  load64
	CMPQ CX, $3
	JEQ  store64
	CMPQ CX, $4
	JEQ  exec

	// The digest of a page: see Digest.
	XORL AX, AX
	MOVQ $512, CX

digest:
	ROLQ $5, AX
	ADDQ (DX), AX
	ADDQ $8, DX
	DECQ CX
	JNE  digest
	JMP  done

load8:
	MOVBQZX (DX), AX
	JMP     done

store8:
	MOVB AX, (DX)
	JMP  done

load64:
	MOVQ (DX), AX
	JMP  done

store64:
	MOVQ AX, (DX)
	JMP  done

exec:
	CALL DX

done:
	XORL R12, R12
	MOVQ AX, result+24(FP)
	RET

// Where a probe goes on after a fault, with the frame of probe: AX holds the signal, BX its code, CX
// its address.
TEXT ·landed(SB), NOSPLIT|NOFRAME, $0-56
	MOVQ $0, result+24(FP)
	MOVQ AX, signo+32(FP)
	MOVQ BX, code+40(FP)
	MOVQ CX, fault+48(FP)
	RET

// Offsets in ucontext_t (SysV x86-64): R11 64, R12 72, R13 80, RBX 128, RAX 144, RCX 152, RSP 160, RIP
// 168; in siginfo_t: si_code 8, si_addr 16. Called by the kernel: DI signal, SI siginfo, DX ucontext.
TEXT ·handler(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	MOVQ MARK, AX
	CMPQ AX, 72(DX)
	JNE  crash
	MOVQ $0, 72(DX)
	MOVQ 80(DX), AX
	MOVQ AX, 168(DX)
	MOVQ 64(DX), AX
	MOVQ AX, 160(DX)
	MOVLQZX DI, AX
	MOVQ AX, 144(DX)
	MOVLQSX 8(SI), AX
	MOVQ AX, 128(DX)
	MOVQ 16(SI), AX
	MOVQ AX, 152(DX)
	RET

crash:
	// exit_group with a status of its own.
	MOVQ $117, DI
	MOVQ $231, AX
	SYSCALL
	INT $3

// Where the handler returns to: rt_sigreturn.
TEXT ·restorer(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	MOVQ $15, AX
	SYSCALL
	INT $3

// func entries() (handler, restorer uintptr)
TEXT ·entries(SB), NOSPLIT, $0-16
	LEAQ ·handler(SB), AX
	MOVQ AX, handler+0(FP)
	LEAQ ·restorer(SB), AX
	MOVQ AX, restorer+8(FP)
	RET

// func spawn(flags, stack, control uintptr) (id uintptr)
//
// clone(2). Who is made by it serves the control on the stack.
TEXT ·spawn(SB), NOSPLIT, $0-32
	MOVQ flags+0(FP), DI
	MOVQ stack+8(FP), SI
	MOVQ control+16(FP), R12
	XORL DX, DX
	XORL R10, R10
	XORL R8, R8
	MOVQ $56, AX
	SYSCALL
	CMPQ AX, $0
	JEQ  made
	MOVQ AX, id+24(FP)
	RET

made:
	SUBQ $64, SP
	MOVQ R12, 0(SP)
	// Indirect, so that the linker sees no recursion that a stack would be too small for.
	LEAQ ·serve(SB), AX
	CALL AX
	INT $3

#include "textflag.h"

// A probe announces itself in registers: R12 holds the word below, R13 where to go on after a fault, R11
// the stack pointer to go on with.
#define MARK $0x5e17a11ed0b5e55e

// func probe(op, addr, value uintptr) (result, signo, code, fault uintptr)
TEXT ·probe(SB), NOSPLIT|NOFRAME, $0-56
	MOVQ op+0(FP), CX
	MOVQ addr+8(FP), DX
	MOVQ value+16(FP), AX
	MOVQ $0, signo+32(FP)
	MOVQ $0, code+40(FP)
	MOVQ $0, fault+48(FP)
	LEAQ ·probeLanded(SB), R13
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
	CALL DX
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

done:
	XORL R12, R12
	MOVQ AX, result+24(FP)
	RET

// Where a probe goes on after a fault, with the frame of probe: AX holds the signal, BX its code, CX
// its address.
TEXT ·probeLanded(SB), NOSPLIT|NOFRAME, $0-56
	MOVQ $0, result+24(FP)
	MOVQ AX, signo+32(FP)
	MOVQ BX, code+40(FP)
	MOVQ CX, fault+48(FP)
	RET

// Offsets in ucontext_t (SysV x86-64): R11 64, R12 72, R13 80, RBX 128, RAX 144, RCX 152, RSP 160, RIP
// 168; in siginfo_t: si_code 8, si_addr 16. Called by the kernel: DI signal, SI siginfo, DX ucontext.
TEXT ·faultHandler(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	MOVQ MARK, AX
	CMPQ AX, 72(DX)
	JNE  other
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

other:
	CMPL DI, $7 // SIGBUS
	JEQ  bus
	MOVQ ·goHandlers+0(SB), AX
	JMP  AX

bus:
	MOVQ ·goHandlers+8(SB), AX
	JMP  AX

// func handlerPC() uintptr
TEXT ·handlerPC(SB), NOSPLIT, $0-8
	LEAQ ·faultHandler(SB), AX
	MOVQ AX, ret+0(FP)
	RET

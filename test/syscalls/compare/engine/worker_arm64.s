#include "textflag.h"

// A probe announces itself in registers: R19 holds the word below, R20 where to go on after a fault, R21
// the stack pointer and R22 the link register to go on with.
#define MARK $0x70726f6265646d6d

// func probe(op, addr, value uintptr) (result, signo, code, fault uintptr)
TEXT ·probe(SB), NOSPLIT|NOFRAME, $0-56
	MOVD op+0(FP), R1
	MOVD addr+8(FP), R2
	MOVD value+16(FP), R0
	MOVD ZR, signo+32(FP)
	MOVD ZR, code+40(FP)
	MOVD ZR, fault+48(FP)
	MOVD $·landed(SB), R20
	MOVD RSP, R21
	MOVD LR, R22
	MOVD MARK, R19
	CMP  $0, R1
	BEQ  load8
	CMP  $1, R1
	BEQ  store8
	CMP  $2, R1
	BEQ  load64
	CMP  $3, R1
	BEQ  store64
	CMP  $4, R1
	BEQ  exec

	// The digest of a page: see Digest.
	MOVD ZR, R0
	MOVD $512, R3

digest:
	ROR  $59, R0, R0
	MOVD (R2), R4
	ADD  R4, R0, R0
	ADD  $8, R2, R2
	SUBS $1, R3, R3
	BNE  digest
	B    done

load8:
	MOVBU (R2), R0
	B     done

store8:
	MOVB R0, (R2)
	B    done

load64:
	MOVD (R2), R0
	B    done

store64:
	MOVD R0, (R2)
	B    done

exec:
	CALL (R2)
	MOVD R22, LR

done:
	MOVD ZR, R19
	MOVD R0, result+24(FP)
	RET

// Where a probe goes on after a fault, with the frame of probe: R0 holds the signal, R1 its code, R2
// its address.
TEXT ·landed(SB), NOSPLIT|NOFRAME, $0-56
	MOVD R22, LR
	MOVD ZR, result+24(FP)
	MOVD R0, signo+32(FP)
	MOVD R1, code+40(FP)
	MOVD R2, fault+48(FP)
	RET

// Offsets in ucontext_t of arm64: registers from 184, SP 432, PC 440; in siginfo_t: si_code 8, si_addr
// 16. Called by the kernel: R0 signal, R1 siginfo, R2 ucontext.
TEXT ·handler(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	MOVD 336(R2), R3 // R19
	MOVD MARK, R4
	CMP  R3, R4
	BNE  crash
	MOVD ZR, 336(R2)
	MOVD 344(R2), R3 // R20
	MOVD R3, 440(R2)
	MOVD 352(R2), R3 // R21
	MOVD R3, 432(R2)
	MOVW R0, R3
	MOVD R3, 184(R2)
	MOVW 8(R1), R3
	MOVD R3, 192(R2)
	MOVD 16(R1), R3
	MOVD R3, 200(R2)
	RET

crash:
	// exit_group with a status of its own.
	MOVD $117, R0
	MOVD $94, R8
	SVC
	BRK

// Where the handler returns to: rt_sigreturn.
TEXT ·restorer(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	MOVD $139, R8
	SVC
	BRK

// func entries() (handler, restorer uintptr)
TEXT ·entries(SB), NOSPLIT, $0-16
	MOVD $·handler(SB), R0
	MOVD R0, handler+0(FP)
	MOVD $·restorer(SB), R0
	MOVD R0, restorer+8(FP)
	RET

// func spawn(flags, stack, control uintptr) (id uintptr)
//
// clone(2). Who is made by it serves the control on the stack.
TEXT ·spawn(SB), NOSPLIT, $0-32
	MOVD flags+0(FP), R0
	MOVD stack+8(FP), R1
	MOVD control+16(FP), R19
	MOVD ZR, R2
	MOVD ZR, R3
	MOVD ZR, R4
	MOVD $220, R8
	SVC
	CBZ  R0, made
	MOVD R0, id+24(FP)
	RET

made:
	SUB  $64, RSP
	MOVD R19, 8(RSP)
	// Indirect, so that the linker sees no recursion that a stack would be too small for.
	MOVD $·serve(SB), R4
	CALL (R4)
	BRK

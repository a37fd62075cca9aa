package signals

import "sentrymm/test/syscalls/kit"

// What mendHandler, which is written in assembly, reads and counts. Each process has its own.
var (
	pageLength   = kit.Len(1)
	pageMask     = -kit.Len(1)
	outer, inner uintptr // addresses: see there
	mended       uint64
)

// mendHandlerPC is the address of the handler.
func mendHandlerPC() uintptr

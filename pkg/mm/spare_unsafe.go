package mm

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/safemem"
)

// mincore has the host say which pages of b are there, a byte each, as mincore(2) does.
//
// Preconditions: b is page-aligned, and vec has a byte for each page.
func mincore(b safemem.Block, vec []byte) error {
	_, _, errno := unix.RawSyscall(unix.SYS_MINCORE, b.Addr(), uintptr(len(vec)*hostarch.PageSize), uintptr(unsafe.Pointer(unsafe.SliceData(vec))))
	if errno != 0 {
		return errno
	}
	return nil
}

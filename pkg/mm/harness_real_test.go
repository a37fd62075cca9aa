package mm

import (
	"errors"
	"fmt"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/safecopy"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/platform"
)

// realSize is how many bytes of addresses an address space with memory behind it
// has.
const realSize = 64 << 30

// realAS is an address space in a reserved part of the test's own. The first
// address space of a test has its application addresses where they really are;
// those of forked children, which have the same, have theirs elsewhere.
type realAS struct {
	t testing.TB

	// base is where app.Start lies in the test process.
	base unsafe.Pointer
	app  hostarch.AddrRange
}

// newRealAS returns an address space for the application addresses app; if app is
// empty, for those that it happens to get.
func newRealAS(t testing.TB, app hostarch.AddrRange) *realAS {
	t.Helper()
	const huge = hostarch.HugePageSize
	base, err := unix.MmapPtr(-1, 0, nil, realSize+huge, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		t.Fatalf("cannot reserve %d GiB of addresses: %v", realSize>>30, err)
	}
	whole := base
	// When the address space has been released, and if nobody can be using it.
	worldOf(t).atLast(func() { unix.MunmapPtr(whole, realSize+huge) })
	base = unsafe.Add(base, -uintptr(base)&(huge-1))
	if app.Length() == 0 {
		app = hostarch.AddrRange{Start: hostarch.Addr(uintptr(base)), End: hostarch.Addr(uintptr(base)) + realSize}
	}
	return &realAS{t: t, base: base, app: app}
}

// at returns the pointer for addr.
func (as *realAS) at(addr hostarch.Addr) unsafe.Pointer {
	return unsafe.Add(as.base, uintptr(addr-as.app.Start))
}

// addrOf is the inverse of at.
func (as *realAS) addrOf(p uintptr) hostarch.Addr {
	return hostarch.Addr(p-uintptr(as.base)) + as.app.Start
}

// MapFile implements platform.AddressSpace.MapFile.
func (as *realAS) MapFile(addr hostarch.Addr, f memmap.File, fr memmap.FileRange, at hostarch.AccessType, precommit bool) error {
	if ar, ok := addr.ToRange(fr.Length()); !ok || !as.app.IsSupersetOf(ar) {
		as.t.Errorf("MapFile(%v) is outside of the address space %v", ar, as.app)
		return unix.EINVAL
	}
	fd, err := f.DataFD(fr)
	if err != nil {
		return err
	}
	flags := unix.MAP_SHARED | unix.MAP_FIXED
	if precommit {
		flags |= unix.MAP_POPULATE
	}
	_, err = unix.MmapPtr(fd, int64(fr.Start), as.at(addr), uintptr(fr.Length()), at.Prot(), flags)
	return err
}

// Unmap implements platform.AddressSpace.Unmap.
func (as *realAS) Unmap(addr hostarch.Addr, length uint64) {
	ar, _ := addr.ToRange(length)
	as.reserve(ar.Intersect(as.app))
}

// reserve makes ar inaccessible.
func (as *realAS) reserve(ar hostarch.AddrRange) {
	if ar.Length() == 0 {
		return
	}
	const flags = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_NORESERVE | unix.MAP_FIXED
	if _, err := unix.MmapPtr(-1, 0, as.at(ar.Start), uintptr(ar.Length()), unix.PROT_NONE, flags); err != nil {
		as.t.Errorf("cannot unmap %v: %v", ar, err)
	}
}

// Release implements platform.AddressSpace.Release.
func (as *realAS) Release() {
	as.reserve(as.app)
}

// fault turns a signal in an access to application memory into what
// AddressSpaceIO says of it.
func (as *realAS) fault(err error) error {
	var segv safecopy.SegvError
	if errors.As(err, &segv) {
		return platform.SegmentationFault{Addr: as.addrOf(segv.Addr)}
	}
	return err
}

// CopyOut implements platform.AddressSpaceIO.CopyOut.
func (as *realAS) CopyOut(addr hostarch.Addr, src []byte) (int, error) {
	n, err := safecopy.CopyOut(as.at(addr), src)
	return n, as.fault(err)
}

// CopyIn implements platform.AddressSpaceIO.CopyIn.
func (as *realAS) CopyIn(addr hostarch.Addr, dst []byte) (int, error) {
	n, err := safecopy.CopyIn(dst, as.at(addr))
	return n, as.fault(err)
}

// ZeroOut implements platform.AddressSpaceIO.ZeroOut.
func (as *realAS) ZeroOut(addr hostarch.Addr, toZero uintptr) (uintptr, error) {
	n, err := safecopy.ZeroOut(as.at(addr), toZero)
	return n, as.fault(err)
}

// SwapUint32 implements platform.AddressSpaceIO.SwapUint32.
func (as *realAS) SwapUint32(addr hostarch.Addr, to uint32) (uint32, error) {
	old, err := safecopy.SwapUint32(as.at(addr), to)
	return old, as.fault(err)
}

// CompareAndSwapUint32 implements platform.AddressSpaceIO.CompareAndSwapUint32.
func (as *realAS) CompareAndSwapUint32(addr hostarch.Addr, from, to uint32) (uint32, error) {
	old, err := safecopy.CompareAndSwapUint32(as.at(addr), from, to)
	return old, as.fault(err)
}

// LoadUint32 implements platform.AddressSpaceIO.LoadUint32.
func (as *realAS) LoadUint32(addr hostarch.Addr) (uint32, error) {
	v, err := safecopy.LoadUint32(as.at(addr))
	return v, as.fault(err)
}

// The methods below do what a thread of the application does: they access memory
// through the host's page tables, and when that faults, have the sentry handle it
// and try again. They return what HandleUserFault does, or the host's SIGBUS.

// access runs try until it does not fault.
func (m *testMM) access(at hostarch.AccessType, try func(as *realAS) error) error {
	as := m.realAS()
	for {
		err := try(as)
		var segv platform.SegmentationFault
		if !errors.As(err, &segv) {
			return err
		}
		if err := m.HandleUserFault(m.ctx, segv.Addr, at, 0); err != nil {
			return err
		}
	}
}

// load copies from application memory, with at least one fault-free access to
// each byte. It returns what was read so far if there is an error.
func (m *testMM) load(addr hostarch.Addr, n int) ([]byte, error) {
	buf := make([]byte, n)
	done := 0
	err := m.access(hostarch.Read, func(as *realAS) error {
		k, err := as.CopyIn(addr+hostarch.Addr(done), buf[done:])
		done += k
		return err
	})
	return buf[:done], err
}

// store copies to application memory.
func (m *testMM) store(addr hostarch.Addr, data []byte) error {
	done := 0
	return m.access(hostarch.Write, func(as *realAS) error {
		k, err := as.CopyOut(addr+hostarch.Addr(done), data[done:])
		done += k
		return err
	})
}

// loadUint32 reads a word atomically.
func (m *testMM) loadUint32(addr hostarch.Addr) (v uint32, err error) {
	err = m.access(hostarch.Read, func(as *realAS) (err error) {
		v, err = as.LoadUint32(addr)
		return err
	})
	return v, err
}

// swapUint32 exchanges a word atomically.
func (m *testMM) swapUint32(addr hostarch.Addr, to uint32) (old uint32, err error) {
	err = m.access(hostarch.ReadWrite, func(as *realAS) (err error) {
		old, err = as.SwapUint32(addr, to)
		return err
	})
	return old, err
}

// realAS returns the memory behind m.
func (m *testMM) realAS() *realAS {
	if m.as.real == nil {
		panic(fmt.Sprintf("%s has no memory behind it: it was made without onRealMemory", m.name))
	}
	return m.as.real
}

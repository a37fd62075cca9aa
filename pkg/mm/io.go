package mm

import (
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/safemem"
	"gvisor.dev/gvisor/pkg/usermem"
)

// Application memory is copied in one of two ways:
//
//   - Through the address space (io_as.go), if the platform can. Nothing needs to
//     be looked up unless a page is missing, so this is best for a few bytes.
//   - Through the sentry's own mappings of the files that back the memory
//     (io_internal.go). The pmas have to be found first, but then large copies run
//     at full speed.
const (
	// asCopyMax is the least size of a plain copy that goes through internal
	// mappings.
	asCopyMax = 32 << 10

	// asStreamMax is the same for copies between application memory and a stream;
	// the address space can do those through a buffer only, so it is smaller.
	asStreamMax = 512
)

// CheckIORange returns the range of length bytes at addr, and whether all of it
// could be application memory (Linux: access_ok).
//
// Preconditions: length >= 0.
func (mm *MemoryManager) CheckIORange(addr hostarch.Addr, length int64) (hostarch.AddrRange, bool) {
	ar, ok := hostarch.UntaggedUserAddr(addr).ToRange(uint64(length))
	return ar, ok && ar.End <= mm.layout.MaxAddr
}

// checkIORanges is CheckIORange for a sequence.
func (mm *MemoryManager) checkIORanges(ars hostarch.AddrRangeSeq) (hostarch.AddrRangeSeq, bool) {
	if ars.NumRanges() == 1 {
		ar, ok := mm.CheckIORange(ars.Head().Start, int64(ars.Head().Length()))
		return hostarch.AddrRangeSeqOf(ar), ok
	}
	checked := make([]hostarch.AddrRange, 0, ars.NumRanges())
	for ; !ars.IsEmpty(); ars = ars.Tail() {
		ar, ok := mm.CheckIORange(ars.Head().Start, int64(ars.Head().Length()))
		if !ok {
			return hostarch.AddrRangeSeq{}, false
		}
		checked = append(checked, ar)
	}
	return hostarch.AddrRangeSeqFromSlice(checked), true
}

// useAS returns whether an access of n bytes should go through the address space;
// it cannot if permissions are to be ignored.
func (mm *MemoryManager) useAS(n, limit int64, opts usermem.IOOpts) bool {
	return mm.haveASIO && !opts.IgnorePermissions && n < limit
}

// faultError returns what I/O says for an error that has to do with the memory, and
// not with what is copied to or from it.
func faultError(err error) error {
	if err == nil {
		return nil
	}
	return linuxerr.EFAULT
}

// CopyOut implements usermem.IO.CopyOut.
func (mm *MemoryManager) CopyOut(ctx context.Context, addr hostarch.Addr, src []byte, opts usermem.IOOpts) (int, error) {
	ar, ok := mm.CheckIORange(addr, int64(len(src)))
	if !ok {
		return 0, linuxerr.EFAULT
	}
	if len(src) == 0 {
		return 0, nil
	}
	done := 0
	if mm.useAS(int64(len(src)), asCopyMax, opts) {
		n, again, err := mm.asCopyOut(ctx, ar, src)
		if !again {
			return n, err
		}
		done = n
	}
	rest := safemem.BlockSeqOf(safemem.BlockFromSafeSlice(src[done:]))
	ar.Start += hostarch.Addr(done)
	n, err := mm.withMappings(ctx, ar, hostarch.Write, opts, func(dst safemem.BlockSeq) (uint64, error) {
		n, err := safemem.CopySeq(dst, rest)
		return n, faultError(err)
	})
	return done + int(n), err
}

// CopyIn implements usermem.IO.CopyIn.
func (mm *MemoryManager) CopyIn(ctx context.Context, addr hostarch.Addr, dst []byte, opts usermem.IOOpts) (int, error) {
	ar, ok := mm.CheckIORange(addr, int64(len(dst)))
	if !ok {
		return 0, linuxerr.EFAULT
	}
	if len(dst) == 0 {
		return 0, nil
	}
	done := 0
	if mm.useAS(int64(len(dst)), asCopyMax, opts) {
		n, again, err := mm.asCopyIn(ctx, ar, dst)
		if !again {
			return n, err
		}
		done = n
	}
	rest := safemem.BlockSeqOf(safemem.BlockFromSafeSlice(dst[done:]))
	ar.Start += hostarch.Addr(done)
	n, err := mm.withMappings(ctx, ar, hostarch.Read, opts, func(src safemem.BlockSeq) (uint64, error) {
		n, err := safemem.CopySeq(rest, src)
		return n, faultError(err)
	})
	return done + int(n), err
}

// ZeroOut implements usermem.IO.ZeroOut.
func (mm *MemoryManager) ZeroOut(ctx context.Context, addr hostarch.Addr, toZero int64, opts usermem.IOOpts) (int64, error) {
	ar, ok := mm.CheckIORange(addr, toZero)
	if !ok {
		return 0, linuxerr.EFAULT
	}
	if toZero == 0 {
		return 0, nil
	}
	var done int64
	if mm.useAS(toZero, asCopyMax, opts) {
		n, again, err := mm.asZeroOut(ctx, ar)
		if !again {
			return n, err
		}
		done = n
	}
	ar.Start += hostarch.Addr(done)
	n, err := mm.withMappings(ctx, ar, hostarch.Write, opts, func(dst safemem.BlockSeq) (uint64, error) {
		n, err := safemem.ZeroSeq(dst)
		return n, faultError(err)
	})
	return done + n, err
}

// CopyOutFrom implements usermem.IO.CopyOutFrom.
func (mm *MemoryManager) CopyOutFrom(ctx context.Context, ars hostarch.AddrRangeSeq, src safemem.Reader, opts usermem.IOOpts) (int64, error) {
	ars, ok := mm.checkIORanges(ars)
	if !ok {
		return 0, linuxerr.EFAULT
	}
	if ars.NumBytes() == 0 {
		return 0, nil
	}
	if !mm.useAS(ars.NumBytes(), asStreamMax, opts) {
		return mm.withVecMappings(ctx, ars, hostarch.Write, opts, src.ReadToBlocks)
	}
	// src may be read only once, so not again after a fault.
	buf := make([]byte, ars.NumBytes())
	n, srcErr := src.ReadToBlocks(safemem.BlockSeqOf(safemem.BlockFromSafeSlice(buf)))
	buf = buf[:n]
	var done int64
	for ; len(buf) != 0; ars = ars.Tail() {
		part := buf[:min(len(buf), int(ars.Head().Length()))]
		n, err := mm.CopyOut(ctx, ars.Head().Start, part, opts)
		done += int64(n)
		if err != nil {
			return done, err
		}
		buf = buf[len(part):]
	}
	return done, srcErr
}

// CopyInTo implements usermem.IO.CopyInTo.
func (mm *MemoryManager) CopyInTo(ctx context.Context, ars hostarch.AddrRangeSeq, dst safemem.Writer, opts usermem.IOOpts) (int64, error) {
	ars, ok := mm.checkIORanges(ars)
	if !ok {
		return 0, linuxerr.EFAULT
	}
	if ars.NumBytes() == 0 {
		return 0, nil
	}
	if !mm.useAS(ars.NumBytes(), asStreamMax, opts) {
		return mm.withVecMappings(ctx, ars, hostarch.Read, opts, dst.WriteFromBlocks)
	}
	// dst may be written to only once.
	buf := make([]byte, ars.NumBytes())
	done := 0
	var memErr error
	for ; !ars.IsEmpty() && memErr == nil; ars = ars.Tail() {
		var n int
		n, memErr = mm.CopyIn(ctx, ars.Head().Start, buf[done:done+int(ars.Head().Length())], opts)
		done += n
	}
	if done == 0 {
		return 0, memErr
	}
	n, err := dst.WriteFromBlocks(safemem.BlockSeqOf(safemem.BlockFromSafeSlice(buf[:done])))
	if err == nil {
		err = memErr
	}
	return int64(n), err
}

// EnsurePMAsExist makes pages exist, writable ones, for the length bytes at addr. It
// returns for how many bytes it did, or found, that; the error says why these are
// not all.
func (mm *MemoryManager) EnsurePMAsExist(ctx context.Context, addr hostarch.Addr, length int64, opts usermem.IOOpts) (int64, error) {
	ar, ok := mm.CheckIORange(addr, length)
	if !ok {
		return 0, linuxerr.EFAULT
	}
	if length == 0 {
		return 0, nil
	}
	end, err := mm.fillForIO(ctx, ar, opts)
	for isHole(err) && mm.grewAt(ctx, end) {
		end, err = mm.fillForIO(ctx, ar, opts)
	}
	return int64(end - ar.Start), faultError(err)
}

// fillForIO makes pages exist, writable ones, for ar, as far as they can be had. It
// returns where it got to, and why it stopped there.
//
// Preconditions: ar is not empty. A thaw may be awaited.
func (mm *MemoryManager) fillForIO(ctx context.Context, ar hostarch.AddrRange, opts usermem.IOOpts) (hostarch.Addr, error) {
	root, end, err := mm.lockForAccess(ar, hostarch.Write, opts.IgnorePermissions)
	if end == ar.Start {
		return end, err
	}
	defer mm.activeMu.Unlock()
	end, ferr := mm.fill(ctx, root, hostarch.AddrRange{Start: ar.Start, End: end}, pmaRequest{at: hostarch.Write, touchesAll: true})
	if ferr != nil {
		err = ferr
	}
	return end, err
}

// word runs op on the four bytes at addr, which accesses of type at must be possible
// to: through the address space, where op.as does it, or on an internal mapping,
// where op.internal does.
func (mm *MemoryManager) word(ctx context.Context, addr hostarch.Addr, at hostarch.AccessType, opts usermem.IOOpts, op wordOp) (uint32, error) {
	ar, ok := mm.CheckIORange(addr, 4)
	if !ok {
		return 0, linuxerr.EFAULT
	}
	var val uint32
	if mm.useAS(4, asCopyMax, opts) {
		again, err := mm.asRetry(ctx, ar, at, func() (err error) {
			val, err = op.as(ar.Start)
			return err
		})
		if !again {
			return val, err
		}
	}
	_, err := mm.withMappings(ctx, ar, at, opts, func(b safemem.BlockSeq) (uint64, error) {
		if b.NumBlocks() != 1 || b.NumBytes() != 4 {
			// Two mappings cannot be accessed atomically.
			return 0, linuxerr.EFAULT
		}
		var err error
		val, err = op.internal(b.Head())
		return 4, faultError(err)
	})
	return val, err
}

// wordOp is one atomic operation.
type wordOp struct {
	as       func(addr hostarch.Addr) (uint32, error)
	internal func(b safemem.Block) (uint32, error)
}

// SwapUint32 implements usermem.IO.SwapUint32.
func (mm *MemoryManager) SwapUint32(ctx context.Context, addr hostarch.Addr, new uint32, opts usermem.IOOpts) (uint32, error) {
	return mm.word(ctx, addr, hostarch.ReadWrite, opts, wordOp{
		as:       func(a hostarch.Addr) (uint32, error) { return mm.as.SwapUint32(a, new) },
		internal: func(b safemem.Block) (uint32, error) { return safemem.SwapUint32(b, new) },
	})
}

// CompareAndSwapUint32 implements usermem.IO.CompareAndSwapUint32.
func (mm *MemoryManager) CompareAndSwapUint32(ctx context.Context, addr hostarch.Addr, old, new uint32, opts usermem.IOOpts) (uint32, error) {
	return mm.word(ctx, addr, hostarch.ReadWrite, opts, wordOp{
		as:       func(a hostarch.Addr) (uint32, error) { return mm.as.CompareAndSwapUint32(a, old, new) },
		internal: func(b safemem.Block) (uint32, error) { return safemem.CompareAndSwapUint32(b, old, new) },
	})
}

// LoadUint32 implements usermem.IO.LoadUint32.
func (mm *MemoryManager) LoadUint32(ctx context.Context, addr hostarch.Addr, opts usermem.IOOpts) (uint32, error) {
	return mm.word(ctx, addr, hostarch.Read, opts, wordOp{
		as:       func(a hostarch.Addr) (uint32, error) { return mm.as.LoadUint32(a) },
		internal: safemem.LoadUint32,
	})
}

package mm

import (
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/platform"
)

// asRetry runs try, which accesses ar through the address space, until it succeeds
// or fails for good, and makes the pages accessible that are missing. again says
// that the address space cannot do it now and internal mappings have to.
//
// Preconditions: ar passed CheckIORange and is not empty. mm.haveASIO is true. The
// caller holds a user reference on mm.
func (mm *MemoryManager) asRetry(ctx context.Context, ar hostarch.AddrRange, at hostarch.AccessType, try func() error) (again bool, err error) {
	for {
		err := try()
		switch e := err.(type) {
		case nil:
			return false, nil
		case platform.SegmentationFault:
			// All the rest at once: it will be needed too. Only the page that faulted
			// has to succeed.
			end, _ := ar.End.RoundUp()
			missing := hostarch.AddrRange{Start: hostarch.Addr(e.Addr).RoundDown(), End: end}
			if got, err := mm.access(ctx, missing, at); got == missing.Start {
				return false, faultError(err)
			}
		case platform.AddressSpaceIOUnavailable:
			return true, nil
		default:
			return false, faultError(err)
		}
	}
}

// asCopyOut copies src to ar. It returns how many bytes it copied; again is as for
// asRetry.
func (mm *MemoryManager) asCopyOut(ctx context.Context, ar hostarch.AddrRange, src []byte) (done int, again bool, err error) {
	again, err = mm.asRetry(ctx, ar, hostarch.Write, func() error {
		n, err := mm.as.CopyOut(ar.Start+hostarch.Addr(done), src[done:])
		done += n
		return err
	})
	return done, again, err
}

// asCopyIn is asCopyOut for the other direction.
func (mm *MemoryManager) asCopyIn(ctx context.Context, ar hostarch.AddrRange, dst []byte) (done int, again bool, err error) {
	again, err = mm.asRetry(ctx, ar, hostarch.Read, func() error {
		n, err := mm.as.CopyIn(ar.Start+hostarch.Addr(done), dst[done:])
		done += n
		return err
	})
	return done, again, err
}

// asZeroOut is asCopyOut with zeroes.
func (mm *MemoryManager) asZeroOut(ctx context.Context, ar hostarch.AddrRange) (done int64, again bool, err error) {
	again, err = mm.asRetry(ctx, ar, hostarch.Write, func() error {
		n, err := mm.as.ZeroOut(ar.Start+hostarch.Addr(done), uintptr(ar.Length())-uintptr(done))
		done += int64(n)
		return err
	})
	return done, again, err
}

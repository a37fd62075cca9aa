package mm

import (
	"runtime"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/safemem"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/usermem"
)

// blockFunc does I/O on blocks and returns how many bytes it got done.
type blockFunc func(safemem.BlockSeq) (uint64, error)

// withMappings calls f once, with the sentry's mappings of the memory at ar, as much
// of it as can be accessed as at and opts say, and returns what f returns. If f has
// no error to report but not all of ar could be accessed, the error is EFAULT. If
// none could, f is not called.
//
// While f runs, activeMu is locked for reading, or the pages are held, see holdPages.
//
// Preconditions: ar passed CheckIORange and is not empty. A thaw may be awaited.
func (mm *MemoryManager) withMappings(ctx context.Context, ar hostarch.AddrRange, at hostarch.AccessType, opts usermem.IOOpts, f blockFunc) (int64, error) {
	return mm.withVecMappings(ctx, hostarch.AddrRangeSeqOf(ar), at, opts, f)
}

// withVecMappings is withMappings for a sequence of ranges.
func (mm *MemoryManager) withVecMappings(ctx context.Context, ars hostarch.AddrRangeSeq, at hostarch.AccessType, opts usermem.IOOpts, f blockFunc) (int64, error) {
	mm.copies.note()
	// Most of the time all is there.
	mm.activeMu.RLock()
	if blocks, ok := mm.readyBlocks(ars, at, opts.IgnorePermissions); ok {
		release := mm.holdPages(ctx, ars, blocks.NumBytes())
		defer release()
		n, err := f.inBlocks(blocks)
		return int64(n), err
	}
	mm.activeMu.RUnlock()

	io, err := mm.lockBlocks(ctx, ars, at, opts.IgnorePermissions)
	for grown := true; grown && isHole(err); {
		if io.bytes != 0 {
			mm.activeMu.Unlock()
		}
		// All that is before the hole is there, so that is where the access gets to.
		grown = mm.grewAt(ctx, addrAt(ars, io.bytes))
		io, err = mm.lockBlocks(ctx, ars, at, opts.IgnorePermissions)
	}
	if io.bytes == 0 {
		return 0, faultError(err)
	}
	mm.activeMu.DowngradeLock()
	if len(io.buffers) == 0 {
		release := mm.holdPages(ctx, ars, io.bytes)
		defer release()
	} else {
		defer mm.activeMu.RUnlock()
	}
	n, ioErr := f.inBlocks(safemem.BlockSeqFromSlice(io.blocks))
	n, ioErr = io.flush(n, ioErr)
	if ioErr != nil {
		return int64(n), ioErr
	}
	return int64(n), faultError(err)
}

const (
	// blockUnit is the most bytes that are copied in one go, some 50 microseconds. The copying is done in assembly, where Go
	// stops no goroutine; and whenever it has to stop all of them, as it does twice in a garbage collection,
	// those that stopped already wait for this one: 80 milliseconds for a copy of 512 MiB.
	blockUnit = 256 << 10

	// mostBlocks is how many blocks there should be: the host takes up to 1024 in one call (UIO_MAXIOV).
	mostBlocks = 512
)

// inBlocks does f on blocks, cut into smaller ones. The goroutine keeps its thread meanwhile: Go takes the processor from it after ten milliseconds, between two blocks, and another
// thread may go on with it, on a processor where others are at work; what they do moves, too. Reading 512 MiB on ptrace beside a thread that reads and writes, without this and with it, as often as
// stock's and its p99 as many times as long (16 pairs):
//
//	reads of 512 MiB          0.95   0.99
//	p99 of read and write     1.16   1.09
func (f blockFunc) inBlocks(blocks safemem.BlockSeq) (uint64, error) {
	if blocks.NumBytes() > blockUnit {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
	}
	return f(cutBlocks(blocks))
}

// cutBlocks returns the memory of blocks in blocks of blockUnit, or, if it is very much, in mostBlocks or somewhat more.
func cutBlocks(blocks safemem.BlockSeq) safemem.BlockSeq {
	n := blocks.NumBytes()
	if n <= blockUnit {
		return blocks
	}
	unit := max(blockUnit, int((n+mostBlocks-1)/mostBlocks))
	cut := make([]safemem.Block, 0, min(mostBlocks, n/blockUnit)+1)
	for ; !blocks.IsEmpty(); blocks = blocks.Tail() {
		b := blocks.Head()
		for ; b.Len() > unit; b = b.DropFirst(unit) {
			cut = append(cut, b.TakeFirst(unit))
		}
		cut = append(cut, b)
	}
	return safemem.BlockSeqFromSlice(cut)
}

// addrAt returns the address of the byte that n bytes of ars come before.
//
// Preconditions: there is one.
func addrAt(ars hostarch.AddrRangeSeq, n uint64) hostarch.Addr {
	rest := ars.DropFirst64(int64(n))
	for rest.Head().Length() == 0 {
		rest = rest.Tail()
	}
	return rest.Head().Start
}

// lockBlocks locks activeMu for writing and returns blocks for as much of ars as can
// be accessed as at says; the error, if any, says why that is not all. If it is
// nothing, activeMu is not locked.
//
// Preconditions: as for withMappings.
func (mm *MemoryManager) lockBlocks(ctx context.Context, ars hostarch.AddrRangeSeq, at hostarch.AccessType, ignorePermissions bool) (ioBlocks, error) {
	req := pmaRequest{at: at, touchesAll: true}
	for rest := ars; !rest.IsEmpty(); rest = rest.Tail() {
		mm.prefill(ctx, rest.Head(), ignorePermissions, req)
	}
	io := ioBlocks{write: at.Write, read: at.Read || at.Execute}
	root, end, err := mm.lockForIO(ars, at, ignorePermissions)
	if end == 0 {
		return io, err
	}
	for rest := ars.TakeFirst64(end); !rest.IsEmpty(); rest = rest.Tail() {
		ar := rest.Head()
		if ar.Length() == 0 {
			continue
		}
		got, ferr := mm.fill(ctx, root, ar, req)
		if got > ar.Start {
			if berr := mm.collect(hostarch.AddrRange{Start: ar.Start, End: got}, &io); berr != nil {
				ferr = berr
			}
		}
		if ferr != nil {
			err = ferr
			break
		}
	}
	if io.bytes == 0 {
		mm.activeMu.Unlock()
	}
	return io, err
}

// readyBlocks returns the internal mappings of all of ars, if pmas with internal
// mappings exist that allow the access.
//
// Preconditions: activeMu is locked.
func (mm *MemoryManager) readyBlocks(ars hostarch.AddrRangeSeq, at hostarch.AccessType, ignorePermissions bool) (safemem.BlockSeq, bool) {
	var blocks []safemem.Block
	for rest := ars; !rest.IsEmpty(); rest = rest.Tail() {
		ar := rest.Head()
		if ar.Length() == 0 {
			continue
		}
		if mm.frozen.overlaps(ar) {
			return safemem.BlockSeq{}, false
		}
		for c := mm.pmas.LowerBound(uint64(ar.Start)); ; c.Next() {
			if !c.Valid() || c.Range().Start > uint64(ar.Start) || !c.Value().ready(at, ignorePermissions) {
				return safemem.BlockSeq{}, false
			}
			part := ar
			part.End = min(ar.End, hostarch.Addr(c.Range().End))
			seq := blocksOf(c.Entry(), part)
			if part.End == ar.End && blocks == nil && rest.NumRanges() == 1 {
				// The usual case allocates nothing.
				return seq, true
			}
			blocks = appendBlocks(blocks, seq)
			if ar.Start = part.End; ar.Length() == 0 {
				break
			}
		}
	}
	return safemem.BlockSeqFromSlice(blocks), true
}

// ready returns whether I/O can use p as it is.
func (p *pma) ready(at hostarch.AccessType, ignorePermissions bool) bool {
	perms := p.effectivePerms
	if ignorePermissions {
		perms = p.maxPerms
		perms.Write = perms.Write && (p.private || p.effectivePerms.Write) // see vma.permits
	}
	return perms.SupersetOf(at) && !p.mappings.IsEmpty()
}

// appendBlocks appends the blocks of seq.
func appendBlocks(blocks []safemem.Block, seq safemem.BlockSeq) []safemem.Block {
	for ; !seq.IsEmpty(); seq = seq.Tail() {
		blocks = append(blocks, seq.Head())
	}
	return blocks
}

// lockForIO is lockForAccess for a sequence of ranges. It returns how many bytes at
// the start of ars are accessible; if these are none, activeMu is not locked.
func (mm *MemoryManager) lockForIO(ars hostarch.AddrRangeSeq, at hostarch.AccessType, ignorePermissions bool) (root vmaSnapshot, n int64, err error) {
	for {
		mm.activeMu.Lock()
		root = mm.vmas.Peek()
		n, err = 0, nil
		wait := false
		for rest := ars; !rest.IsEmpty() && err == nil; rest = rest.Tail() {
			ar := rest.Head()
			if ar.Length() == 0 {
				continue
			}
			var end hostarch.Addr
			end, err = reach(root, ar, at, ignorePermissions)
			end = max(end, ar.Start)
			n += int64(end - ar.Start)
			wait = wait || mm.frozen.overlaps(hostarch.AddrRange{Start: ar.Start, End: end})
		}
		if n == 0 {
			mm.activeMu.Unlock()
			return root, 0, err
		}
		if !wait {
			return root, n, err
		}
		f := mm.frozen
		thawed := f.whenThawed()
		mm.activeMu.Unlock()
		<-thawed
	}
}

// ioBlocks are the blocks of one I/O operation. Memory that the sentry cannot map
// takes part through buffers.
type ioBlocks struct {
	read, write bool
	blocks      []safemem.Block

	// bytes is the sum of blocks, buffers those of them that are buffers.
	bytes   uint64
	buffers []ioBuffer
}

// ioBuffer stands for memory at off in file.
type ioBuffer struct {
	// at is where in the operation it begins.
	at   uint64
	file memmap.File
	off  uint64
	data []byte
}

// collect appends the memory at ar to io.
//
// Preconditions: activeMu is locked for writing. pmas exist for all of ar.
func (mm *MemoryManager) collect(ar hostarch.AddrRange, io *ioBlocks) error {
	for c := mm.pmas.LowerBound(uint64(ar.Start)); c.Valid() && c.Range().Start < uint64(ar.End); c.Next() {
		e := c.Entry()
		part := addrRange(e.Range).Intersect(ar)
		_, err := internalMappings(e)
		if _, ok := err.(memmap.BufferedIOFallbackErr); ok {
			err = io.buffer(e.Value.file, e.Value.fileRange(e.Start, part))
		} else if err == nil {
			io.blocks = appendBlocks(io.blocks, blocksOf(e, part))
			io.bytes += uint64(part.Length())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// buffer appends a buffer for fr in file, filled if the operation reads.
func (io *ioBlocks) buffer(file memmap.File, fr memmap.FileRange) error {
	b := ioBuffer{at: io.bytes, file: file, off: fr.Start, data: make([]byte, fr.Length())}
	var err error
	if io.read {
		var n uint64
		n, err = file.BufferReadAt(b.off, b.data)
		b.data = b.data[:n]
	}
	if len(b.data) != 0 {
		io.blocks = append(io.blocks, safemem.BlockFromSafeSlice(b.data))
		io.bytes += uint64(len(b.data))
		io.buffers = append(io.buffers, b)
	}
	return err
}

// flush writes the buffers to their files that the first n bytes of the operation
// have changed. It returns n and ioErr, or if that fails how many bytes are really
// done, and the error.
func (io *ioBlocks) flush(n uint64, ioErr error) (uint64, error) {
	if !io.write {
		return n, ioErr
	}
	for _, b := range io.buffers {
		if n <= b.at {
			break
		}
		data := b.data[:min(uint64(len(b.data)), n-b.at)]
		if written, err := b.file.BufferWriteAt(b.off, data); err != nil {
			return b.at + written, err
		}
	}
	return n, ioErr
}

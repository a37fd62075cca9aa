package mm

import (
	"bytes"
	"testing"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/safemem"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	"gvisor.dev/gvisor/pkg/usermem"
)

// Claims: all of usermem.IO does what it says, whether the memory is reached through
// internal mappings, through the address space, or by buffers, because the file
// cannot be mapped by the sentry; it stops where an access would, having done what is
// before; and what goes to a private mapping never gets to the file.

// bufferedFile is a memory file that the sentry cannot map.
type bufferedFile struct {
	*pgalloc.MemoryFile
	t testing.TB
}

// MapInternal implements memmap.File.
func (*bufferedFile) MapInternal(memmap.FileRange, hostarch.AccessType) (safemem.BlockSeq, error) {
	return safemem.BlockSeq{}, memmap.BufferedIOFallbackErr{}
}

// BufferReadAt implements memmap.File.
func (f *bufferedFile) BufferReadAt(off uint64, dst []byte) (uint64, error) {
	return uint64(copy(dst, fileBytes(f.t, f.MemoryFile, memmap.FileRange{Start: off, End: off + uint64(len(dst))}))), nil
}

// BufferWriteAt implements memmap.File.
func (f *bufferedFile) BufferWriteAt(off uint64, src []byte) (uint64, error) {
	fillFile(f.t, f.MemoryFile, off, src)
	return uint64(len(src)), nil
}

// bufferedMappable is a testMappable whose pages are in a bufferedFile.
type bufferedMappable struct {
	*testMappable
	file *bufferedFile
}

// Translate implements memmap.Mappable.
func (m *bufferedMappable) Translate(ctx context.Context, required, optional memmap.MappableRange, at hostarch.AccessType) ([]memmap.Translation, error) {
	ts, err := m.testMappable.Translate(ctx, required, optional, at)
	for i := range ts {
		ts[i].File = m.file
	}
	return ts, err
}

// ioScene is three pages, of which the second is of another kind than the others:
// then two bytes that can be read only, then nothing.
//
//	| anonymous | file | anonymous | read-only | hole |
type ioScene struct {
	*testMM
	addr hostarch.Addr
	set  *sharedSet
}

const ioSize = 3 * pageSize

func ioScenes(t *testing.T, run func(t *testing.T, s *ioScene)) {
	for _, kind := range []string{"internal", "asio", "buffered"} {
		t.Run(kind, func(t *testing.T) {
			mods := []func(*mmConfig){onRealMemory}
			if kind == "asio" {
				mods = append(mods, withASIO)
			}
			s := &ioScene{testMM: newTestMM(t, mods...)}
			s.addr = s.base
			f := newTestMappable(t, s.mf, pageSize)
			s.set = f.set
			file := sharedFile(f, 0)
			if kind == "buffered" {
				b := &bufferedMappable{f, &bufferedFile{s.mf, t}}
				file = func(o *memmap.MMapOpts) {
					sharedFile(f, 0)(o)
					o.Mappable = b
				}
			}
			s.mustMap(ioSize, hostarch.ReadWrite, fixedAt(s.addr))
			s.mustMap(pageSize, hostarch.ReadWrite, fixedAt(s.addr+pageSize), file)
			s.mustMap(pageSize, hostarch.Read, fixedAt(s.addr+ioSize))
			run(t, s)
			s.check()
		})
	}
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// around are the bytes at which the copies start and end, across all pages.
const ioFrom, ioLen = 100, ioSize - 200

func TestCopyOutThenCopyIn(t *testing.T) {
	ioScenes(t, func(t *testing.T, s *ioScene) {
		want := pattern(ioLen)
		if n, err := s.CopyOut(s.ctx, s.addr+ioFrom, want, usermem.IOOpts{}); n != ioLen || err != nil {
			t.Fatalf("CopyOut: %d, %v", n, err)
		}
		got := make([]byte, ioLen)
		if n, err := s.CopyIn(s.ctx, s.addr+ioFrom, got, usermem.IOOpts{}); n != ioLen || err != nil || !bytes.Equal(got, want) {
			t.Fatalf("CopyIn: %d, %v, equal: %t", n, err, bytes.Equal(got, want))
		}
		if got := s.set.read(0, pageSize); !bytes.Equal(got, want[pageSize-ioFrom:2*pageSize-ioFrom]) {
			t.Error("the file has not what was written to its mapping")
		}
		if got, err := s.load(s.addr+ioFrom, ioLen); err != nil || !bytes.Equal(got, want) {
			t.Errorf("the application does not read what was written: %v", err)
		}
	})
}

func TestCopyStopsWhereAccessesDo(t *testing.T) {
	ioScenes(t, func(t *testing.T, s *ioScene) {
		buf := pattern(5 * pageSize)
		if n, err := s.CopyOut(s.ctx, s.addr, buf, usermem.IOOpts{}); n != ioSize || !linuxerr.Equals(linuxerr.EFAULT, err) {
			t.Errorf("CopyOut: %d, %v; from %d on memory is read-only", n, err, ioSize)
		}
		if n, err := s.CopyIn(s.ctx, s.addr, buf, usermem.IOOpts{}); n != ioSize+pageSize || !linuxerr.Equals(linuxerr.EFAULT, err) {
			t.Errorf("CopyIn: %d, %v; from %d on there is nothing", n, err, ioSize+pageSize)
		}
		if n, err := s.CopyOut(s.ctx, s.addr, buf, usermem.IOOpts{IgnorePermissions: true}); n != ioSize+pageSize || !linuxerr.Equals(linuxerr.EFAULT, err) {
			t.Errorf("CopyOut without regard to permissions: %d, %v", n, err)
		}
		if n, err := s.CopyOut(s.ctx, s.addr+ioSize, buf[:1], usermem.IOOpts{}); n != 0 || !linuxerr.Equals(linuxerr.EFAULT, err) {
			t.Errorf("CopyOut to read-only memory: %d, %v", n, err)
		}
		if n, err := s.CopyIn(s.ctx, s.layout.MaxAddr-1, buf[:2], usermem.IOOpts{}); n != 0 || !linuxerr.Equals(linuxerr.EFAULT, err) {
			t.Errorf("CopyIn beyond all addresses: %d, %v", n, err)
		}
		if n, err := s.CopyIn(s.ctx, s.addr+ioSize+pageSize, nil, usermem.IOOpts{}); n != 0 || err != nil {
			t.Errorf("CopyIn of nothing: %d, %v", n, err)
		}
	})
}

func TestZeroOut(t *testing.T) {
	ioScenes(t, func(t *testing.T, s *ioScene) {
		want := pattern(ioSize)
		s.CopyOut(s.ctx, s.addr, want, usermem.IOOpts{})
		if n, err := s.ZeroOut(s.ctx, s.addr+ioFrom, ioLen, usermem.IOOpts{}); n != ioLen || err != nil {
			t.Fatalf("ZeroOut: %d, %v", n, err)
		}
		clear(want[ioFrom : ioFrom+ioLen])
		got := make([]byte, ioSize)
		if _, err := s.CopyIn(s.ctx, s.addr, got, usermem.IOOpts{}); err != nil || !bytes.Equal(got, want) {
			t.Errorf("other bytes than those are zero (%v)", err)
		}
		if n, err := s.ZeroOut(s.ctx, s.addr+ioSize-1, 2, usermem.IOOpts{}); n != 1 || !linuxerr.Equals(linuxerr.EFAULT, err) {
			t.Errorf("ZeroOut into read-only memory: %d, %v", n, err)
		}
	})
}

func TestStreamsOfRanges(t *testing.T) {
	ioScenes(t, func(t *testing.T, s *ioScene) {
		// Short ones, and ones across pages; through the address space these go
		// different ways.
		for _, n := range []int{10, pageSize} {
			seq := hostarch.AddrRangeSeqFromSlice([]hostarch.AddrRange{
				rangeAt(s.addr+2*pageSize-5, uint64(n)), {}, rangeAt(s.addr+pageSize-5, uint64(n)/2),
			})
			want := pattern(n + n/2)
			src := bytes.NewReader(want)
			if got, err := s.CopyOutFrom(s.ctx, seq, safemem.FromIOReader{Reader: src}, usermem.IOOpts{}); int(got) != len(want) || err != nil {
				t.Fatalf("CopyOutFrom: %d, %v", got, err)
			}
			var dst bytes.Buffer
			if got, err := s.CopyInTo(s.ctx, seq, safemem.FromIOWriter{Writer: &dst}, usermem.IOOpts{}); int(got) != len(want) || err != nil {
				t.Fatalf("CopyInTo: %d, %v", got, err)
			}
			if !bytes.Equal(dst.Bytes(), want) {
				t.Errorf("of %d bytes, others came back", len(want))
			}
			// A stream that ends early is no fault of the memory's.
			short := bytes.NewReader(want[:3])
			if got, err := s.CopyOutFrom(s.ctx, seq, safemem.FromIOReader{Reader: short}, usermem.IOOpts{}); got != 3 {
				t.Errorf("CopyOutFrom three bytes: %d, %v", got, err)
			}
		}
	})
}

func TestWords(t *testing.T) {
	ioScenes(t, func(t *testing.T, s *ioScene) {
		for _, addr := range []hostarch.Addr{s.addr + 8, s.addr + pageSize + 8} {
			if old, err := s.SwapUint32(s.ctx, addr, 5, usermem.IOOpts{}); old != 0 || err != nil {
				t.Errorf("swap: %d, %v", old, err)
			}
			if old, err := s.CompareAndSwapUint32(s.ctx, addr, 4, 6, usermem.IOOpts{}); old != 5 || err != nil {
				t.Errorf("compare with another: %d, %v", old, err)
			}
			if old, err := s.CompareAndSwapUint32(s.ctx, addr, 5, 7, usermem.IOOpts{}); old != 5 || err != nil {
				t.Errorf("compare with the same: %d, %v", old, err)
			}
			if v, err := s.LoadUint32(s.ctx, addr, usermem.IOOpts{}); v != 7 || err != nil {
				t.Errorf("load: %d, %v", v, err)
			}
		}
		if _, err := s.SwapUint32(s.ctx, s.addr+ioSize, 1, usermem.IOOpts{}); !linuxerr.Equals(linuxerr.EFAULT, err) {
			t.Errorf("swap in read-only memory: %v", err)
		}
		if v, err := s.LoadUint32(s.ctx, s.addr+ioSize, usermem.IOOpts{}); v != 0 || err != nil {
			t.Errorf("load of read-only memory: %d, %v", v, err)
		}
		if _, err := s.LoadUint32(s.ctx, s.addr+ioSize+pageSize, usermem.IOOpts{}); !linuxerr.Equals(linuxerr.EFAULT, err) {
			t.Errorf("load of nothing: %v", err)
		}
	})
}

func TestEnsurePMAsExistMakesPagesAndKeepsContents(t *testing.T) {
	ioScenes(t, func(t *testing.T, s *ioScene) {
		want := pattern(ioSize)
		if _, err := s.CopyOut(s.ctx, s.addr, want, usermem.IOOpts{}); err != nil {
			t.Fatal(err)
		}
		if n, err := s.EnsurePMAsExist(s.ctx, s.addr, ioSize, usermem.IOOpts{}); n != ioSize || err != nil {
			t.Fatalf("EnsurePMAsExist: %#x, %v", n, err)
		}
		got := make([]byte, ioSize)
		if _, err := s.CopyIn(s.ctx, s.addr, got, usermem.IOOpts{}); err != nil || !bytes.Equal(got, want) {
			t.Errorf("EnsurePMAsExist has changed memory (%v)", err)
		}
		if n := s.residentBytes(rangeAt(s.addr, ioSize)); n != ioSize {
			t.Errorf("%#x bytes are resident", n)
		}
		if n, err := s.EnsurePMAsExist(s.ctx, s.addr, ioSize+1, usermem.IOOpts{}); n != ioSize || !linuxerr.Equals(linuxerr.EFAULT, err) {
			t.Errorf("into read-only memory: %#x, %v", n, err)
		}
	})
}

func TestWritesToPrivateMappingsStayOutOfTheFile(t *testing.T) {
	//	|  file has two pages  | beyond its end |
	//	|----- one write of three pages --------|
	for name, write := range map[string]func(m *testMM, addr hostarch.Addr, b []byte) (int64, error){
		"CopyOut": func(m *testMM, addr hostarch.Addr, b []byte) (int64, error) {
			n, err := m.CopyOut(m.ctx, addr, b, usermem.IOOpts{})
			return int64(n), err
		},
		"ZeroOut": func(m *testMM, addr hostarch.Addr, b []byte) (int64, error) {
			clear(b)
			return m.ZeroOut(m.ctx, addr, int64(len(b)), usermem.IOOpts{})
		},
		"CopyOutFrom": func(m *testMM, addr hostarch.Addr, b []byte) (int64, error) {
			return m.CopyOutFrom(m.ctx, hostarch.AddrRangeSeqOf(rangeAt(addr, uint64(len(b)))), safemem.FromIOReader{Reader: bytes.NewReader(b)}, usermem.IOOpts{})
		},
		"Pin": func(m *testMM, addr hostarch.Addr, b []byte) (int64, error) {
			prs, err := m.Pin(m.ctx, rangeAt(addr, uint64(len(b))), hostarch.Write, false)
			defer Unpin(prs)
			var n int64
			for _, pr := range prs {
				fillFile(m.t, pr.File, pr.Offset, b[n:][:pr.Source.Length()])
				n += int64(pr.Source.Length())
			}
			return n, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTestMM(t, onRealMemory)
			f := newTestMappable(t, m.mf, 2*pageSize)
			file := bytes.Repeat([]byte("file"), 2*pageSize/4)
			f.set.write(0, file)
			addr := m.mustMap(3*pageSize, hostarch.ReadWrite, privateFile(f, 0))
			want := pattern(3 * pageSize)
			n, err := write(m, addr, want)
			if n != 2*pageSize || err == nil {
				t.Errorf("wrote %#x bytes, %v; the file has %#x", n, err, 2*pageSize)
			}
			if got := f.set.read(0, 2*pageSize); !bytes.Equal(got, file) {
				t.Error("what was written to a private mapping is in the file")
			}
			if got, err := m.load(addr, 2*pageSize); err != nil || !bytes.Equal(got, want[:2*pageSize]) {
				t.Errorf("the mapping does not hold what was written (%v)", err)
			}
			m.check()
		})
	}
}

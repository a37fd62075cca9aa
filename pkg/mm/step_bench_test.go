package mm

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// What the host takes for a step's work, natively: the reasons for pieceSize, stepTime and copyUnit, and for how
// memory is committed. docs/performance.md has the results.

// hostFile is a memory file, and where it is mapped: by the sentry, and by an application.
type hostFile struct {
	b   *testing.B
	fd  int
	own []byte
}

const hostFileSize = 64 << 20

func newHostFile(b *testing.B) *hostFile {
	f := &hostFile{b: b}
	var err error
	if f.fd, err = unix.MemfdCreate("step", 0); err == nil {
		err = unix.Ftruncate(f.fd, hostFileSize)
	}
	if err == nil {
		f.own, err = unix.Mmap(f.fd, 0, hostFileSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		unix.Munmap(f.own)
		unix.Close(f.fd)
	})
	return f
}

// punch takes the pages out.
func (f *hostFile) punch(n int) {
	if err := unix.Fallocate(f.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, int64(n)); err != nil {
		f.b.Fatal(err)
	}
}

// mapApp maps the first n bytes, as the platform does.
func (f *hostFile) mapApp(n, flags int) []byte {
	app, err := unix.Mmap(f.fd, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|flags)
	if err != nil {
		f.b.Fatal(err)
	}
	return app
}

// BenchmarkPopulate populates a piece: at once, or committed before in one of three ways. Of the latter, what
// the step itself takes is reported as step-ns/op.
func BenchmarkPopulate(b *testing.B) {
	zeroes := make([]byte, pieceSize)
	for _, way := range []struct {
		name   string
		commit func(f *hostFile, n int) error
	}{
		{"at-once", func(*hostFile, int) error { return nil }},
		{"fallocate", func(f *hostFile, n int) error { return unix.Fallocate(f.fd, 0, 0, int64(n)) }},
		{"touch", func(f *hostFile, n int) error { return unix.Madvise(f.own[:n], unix.MADV_POPULATE_WRITE) }},
		{"write", func(f *hostFile, n int) error { _, err := unix.Pwrite(f.fd, zeroes[:n], 0); return err }},
	} {
		for _, n := range []int{copyUnit, 512 << 10, pieceSize} {
			b.Run(fmt.Sprintf("%s/%dKiB", way.name, n>>10), func(b *testing.B) {
				f := newHostFile(b)
				var step stopwatch
				for b.Loop() {
					if err := way.commit(f, n); err != nil {
						b.Fatal(err)
					}
					step.start()
					app := f.mapApp(n, unix.MAP_POPULATE)
					step.stop()
					b.StopTimer()
					unix.Munmap(app)
					f.punch(n)
					b.StartTimer()
				}
				b.ReportMetric(step.perOp(b), "step-ns/op")
			})
		}
	}
}

// BenchmarkUnmapStep unmaps pieces of which the host has mapped all, or one page each.
func BenchmarkUnmapStep(b *testing.B) {
	for _, every := range []int{pageSize, pieceSize} {
		for _, pieces := range []int{1, 2, 4, 16} {
			b.Run(fmt.Sprintf("a-page-in-%dKiB/pieces-%d", every>>10, pieces), func(b *testing.B) {
				f := newHostFile(b)
				n := pieces * pieceSize
				for b.Loop() {
					b.StopTimer()
					app := f.mapApp(n, 0)
					for i := 0; i < n; i += every {
						app[i] = 1
					}
					b.StartTimer()
					unix.Munmap(app)
				}
			})
		}
	}
}

// BenchmarkCopyUnit copies so much for a write to a page that is copy-on-write.
func BenchmarkCopyUnit(b *testing.B) {
	source := make([]byte, pieceSize)
	for _, n := range []int{pageSize, 16 << 10, copyUnit, 256 << 10, pieceSize} {
		b.Run(fmt.Sprintf("%dKiB", n>>10), func(b *testing.B) {
			f := newHostFile(b)
			for b.Loop() {
				if n > pageSize {
					unix.Madvise(f.own[:n], unix.MADV_POPULATE_WRITE)
				}
				copy(f.own[:n], source)
				b.StopTimer()
				f.punch(n)
				b.StartTimer()
			}
		})
	}
}

// A stopwatch sums times up.
type stopwatch struct{ began, sum unix.Timespec }

func (s *stopwatch) start() { unix.ClockGettime(unix.CLOCK_MONOTONIC, &s.began) }

func (s *stopwatch) stop() {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	s.sum = unix.NsecToTimespec(s.sum.Nano() + now.Nano() - s.began.Nano())
}

func (s *stopwatch) perOp(b *testing.B) float64 { return float64(s.sum.Nano()) / float64(b.N) }

package traps

import (
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const aliasPages = 4

// A replacement makes the mapping at area, backed by a file under a first name, a mapping of the same
// pages of the same file under a second name.
type replacement func(t *testing.T, area []byte, second int)

func byMmap(t *testing.T, area []byte, second int) { shared(t, area, second, 0) }

// byMremap maps the second name beside the area and moves that mapping onto it.
func byMremap(t *testing.T, area []byte, second int) {
	beside := low(4 * aliasPages)[2*aliasPages*pageSize:][:len(area)]
	shared(t, beside, second, 0)
	require.NoError(t, moveTo(area, beside))
}

// checkAlias replaces a mapping of first by one of second, which is the same file, and wants the new
// mapping to be a full one: writes are seen both ways, and a truncation through either name takes the
// pages away and gives zeros back. It does all twice, so that what the first round left registered by
// mistake shows in the second.
func checkAlias(t *testing.T, first, second int, replace replacement) {
	t.Helper()
	area := low(4 * aliasPages)[:aliasPages*pageSize]
	last := &area[len(area)-1]
	lastOffset := int64(len(area) - 1)
	for range 2 {
		for _, name := range []int{first, second} {
			shared(t, area, first, 0)
			require.True(t, store(last, 'a'), "a store before the replacement")
			replace(t, area, second)

			got, ok := load(last)
			require.True(t, ok, "a load after the replacement")
			require.Equal(t, byte('a'), got, "what was stored before the replacement")
			requireByte(t, name, lastOffset, 'a')

			require.True(t, store(last, 'b'))
			requireByte(t, first, lastOffset, 'b')
			requireByte(t, second, lastOffset, 'b')

			_, err := unix.Pwrite(name, []byte{'c'}, lastOffset)
			require.NoError(t, err)
			got, ok = load(last)
			require.True(t, ok)
			require.Equal(t, byte('c'), got, "a write(2) is not seen through the mapping")

			require.NoError(t, unix.Ftruncate(name, 0))
			_, ok = load(last)
			require.False(t, ok, "a page beyond the end of the file is still there")
			require.NoError(t, unix.Ftruncate(name, int64(len(area))))
			got, ok = load(last)
			require.True(t, ok)
			require.Zero(t, got, "what was truncated away is still seen")

			require.NoError(t, unmap(area))
			_, ok = load(last)
			require.False(t, ok, "an unmapped page can be loaded")
			require.NoError(t, unix.Ftruncate(name, 0))
			require.NoError(t, unix.Ftruncate(name, int64(len(area))))
		}
	}
}

func requireByte(t *testing.T, fd int, offset int64, want byte) {
	t.Helper()
	var got [1]byte
	_, err := unix.Pread(fd, got[:], offset)
	require.NoError(t, err)
	require.Equal(t, want, got[0], "a store is not seen through read(2)")
}

func hardlinks(t *testing.T, dir string) (first, second int) {
	t.Helper()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	first = create(t, one, aliasPages)
	require.NoError(t, os.Link(one, two))
	return first, open(t, two, 0)
}

func TestFixedOverHardlinkAlias(t *testing.T) {
	eachDir(t, func(t *testing.T, dir string) {
		first, second := hardlinks(t, dir)
		checkAlias(t, first, second, byMmap)
	})
}

func TestMremapFixedOverAlias(t *testing.T) {
	eachDir(t, func(t *testing.T, dir string) {
		first, second := hardlinks(t, dir)
		checkAlias(t, first, second, byMremap)
	})
}

// A special file's descriptors each are a Mappable of their own in the sentry.
func TestFixedOverSecondSpecialFD(t *testing.T) {
	special := map[string]func(t *testing.T) (int, int){
		"memfd": func(t *testing.T) (int, int) {
			fd, err := unix.MemfdCreate("special", unix.MFD_CLOEXEC)
			require.NoError(t, err)
			t.Cleanup(func() { unix.Close(fd) })
			require.NoError(t, unix.Ftruncate(fd, aliasPages*int64(pageSize)))
			return fd, open(t, "/proc/self/fd/"+strconv.Itoa(fd), 0)
		},
		"shm": func(t *testing.T) (int, int) {
			name := filepath.Join("/dev/shm", "traps-"+strconv.Itoa(os.Getpid()))
			t.Cleanup(func() { os.Remove(name) })
			return create(t, name, aliasPages), open(t, name, 0)
		},
	}
	for name, two := range special {
		t.Run(name, func(t *testing.T) {
			first, second := two(t)
			checkAlias(t, first, second, byMmap)
			checkAlias(t, first, second, byMremap)
		})
	}
	eachDir(t, func(t *testing.T, dir string) {
		name := filepath.Join(dir, "twice")
		checkAlias(t, create(t, name, aliasPages), open(t, name, 0), byMmap)
	})
}

// An overlay gives a file dentries of its own over those of its layers: two hard links through one
// overlay, and one file through two overlays that share a lower layer.
func TestFixedOverOverlayAlias(t *testing.T) {
	needRoot(t)
	layers := mountTmpfs(t)
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		require.NoError(t, os.Mkdir(filepath.Join(layers, name), 0o700))
	}
	merged := filepath.Join(layers, "merged")
	require.NoError(t, unix.Mount("overlay", merged, "overlay", 0,
		"lowerdir="+layers+"/lower,upperdir="+layers+"/upper,workdir="+layers+"/work"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(merged, unix.MNT_DETACH)) })

	t.Run("links", func(t *testing.T) {
		first, second := hardlinks(t, merged)
		checkAlias(t, first, second, byMmap)
		checkAlias(t, first, second, byMremap)
	})
	t.Run("copied up", func(t *testing.T) {
		// The file is mapped read-only from the lower layer first; opening it for writing copies it up, and
		// the mapping of the copy goes over the mapping of the original.
		content := make([]byte, aliasPages*pageSize)
		for i := range content {
			content[i] = 'l'
		}
		require.NoError(t, os.WriteFile(filepath.Join(layers, "lower", "file"), content, 0o600))
		name := filepath.Join(merged, "file")
		lower, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		require.NoError(t, err)
		defer unix.Close(lower)
		area := low(aliasPages)
		require.NoError(t, mapAt(area, unix.PROT_READ, unix.MAP_SHARED|unix.MAP_FIXED, lower, 0))
		got, ok := load(&area[0])
		require.True(t, ok)
		require.Equal(t, byte('l'), got)
		checkAlias(t, open(t, name, 0), open(t, name, 0), byMmap)
	})
}

// While one thread maps a file over itself, another changes the file's size. Whatever a load sees in
// between (the byte, a zero, a fault), the mapping that is there at the end follows the file.
func TestRemapSameFileSameOffset(t *testing.T) {
	eachDir(t, func(t *testing.T, dir string) {
		fd := create(t, filepath.Join(dir, "file"), aliasPages)
		area := low(aliasPages)
		last := &area[len(area)-1]
		shared(t, area, fd, 0)

		done := make(chan struct{})
		var sizing sync.WaitGroup
		var sizeErr error
		sizing.Go(func() {
			for sizeErr == nil {
				if sizeErr = unix.Ftruncate(fd, 0); sizeErr == nil {
					sizeErr = unix.Ftruncate(fd, int64(len(area)))
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
		for range 2000 {
			shared(t, area, fd, 0)
			store(last, 's')
		}
		close(done)
		sizing.Wait()
		require.NoError(t, sizeErr)

		require.True(t, store(last, 'x'))
		requireByte(t, fd, int64(len(area)-1), 'x')
		require.NoError(t, unix.Ftruncate(fd, 0))
		_, ok := load(last)
		require.False(t, ok, "a page beyond the end of the file is still there")
		require.NoError(t, unix.Ftruncate(fd, int64(len(area))))
		got, ok := load(last)
		require.True(t, ok)
		require.Zero(t, got)
	})
}

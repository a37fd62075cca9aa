package traps

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// smaps says of every mapping how large it is and how much of it is resident. While mappings grow,
// shrink and are replaced, the two numbers still are those of one mapping.
func TestSmapsRssNotAboveSize(t *testing.T) {
	area := low(256)
	done := make(chan struct{})
	var changing sync.WaitGroup
	var changeErr error
	changing.Go(func() {
		for round := 0; changeErr == nil; round++ {
			part := area[:(1+round*37%256)*pageSize]
			changeErr = mapAt(area, rw, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED|unix.MAP_POPULATE, -1, 0)
			if changeErr == nil {
				changeErr = mapAt(part, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED, -1, 0)
			}
			if changeErr == nil {
				changeErr = unmap(part)
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	for range 100 {
		mappings := checkSmaps(t)
		require.NotZero(t, mappings)
	}
	close(done)
	changing.Wait()
	require.NoError(t, changeErr)
	unmap(area)
}

func checkSmaps(t *testing.T) (mappings int) {
	t.Helper()
	smaps, err := os.ReadFile("/proc/self/smaps")
	require.NoError(t, err)
	var header string
	var size, rss int
	for lines := bufio.NewScanner(bytes.NewReader(smaps)); lines.Scan(); {
		switch line := lines.Text(); {
		case strings.HasPrefix(line, "Size:"):
			_, err = fmt.Sscanf(line, "Size: %d kB", &size)
		case strings.HasPrefix(line, "Rss:"):
			_, err = fmt.Sscanf(line, "Rss: %d kB", &rss)
			require.LessOrEqual(t, rss, size, "more is resident than is mapped: %s", header)
			mappings++
		case !strings.Contains(strings.Fields(line)[0], ":"):
			header = line
		}
		require.NoError(t, err)
	}
	return mappings
}

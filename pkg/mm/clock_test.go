package mm

import (
	"sync/atomic"
	"time"
)

// In tests each step seems to take a second: steps then are single pieces, whatever the machine does. Tests
// of pace set clocks of their own.
func init() {
	firstPieces = 1
	var seconds atomic.Int64
	stepClock = func() time.Time { return time.Unix(seconds.Add(1), 0) }
}

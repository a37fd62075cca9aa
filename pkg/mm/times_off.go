//go:build !mmtimes

package mm

import (
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
)

// faultTimes notes nothing, and costs nothing; see times_on.go.
type faultTimes struct{}

func (faultTimes) begin()                             {}
func (faultTimes) askHost()                           {}
func (faultTimes) hostDone()                          {}
func (faultTimes) end(context.Context, hostarch.Addr) {}

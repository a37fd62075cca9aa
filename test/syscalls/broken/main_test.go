// Package broken has programs that have broken kernels, written anew from their description.
package broken

import (
	"testing"

	"sentrymm/test/syscalls/kit"
)

func TestMain(m *testing.M) { kit.Main(m) }

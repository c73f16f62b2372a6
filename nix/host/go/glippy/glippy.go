// Package glippy copies text to the clipboard: the part of github.com/f1bonacc1/glippy that
// process-compose calls, for a registry that does not serve that module. It knows one method, the
// OSC 52 sequence, which the terminal carries out (xterm's "Manipulate Selection Data"), also over ssh.
package glippy

import (
	"encoding/base64"
	"fmt"
	"os"
)

// Method is a way to reach the clipboard.
type Method string

// MethodOSC52 writes the sequence to the controlling terminal.
const MethodOSC52 Method = "osc52"

// Set copies text. The error says why there is no terminal to write to.
func Set(text string) error {
	_, err := SetWithMethod(text)
	return err
}

// SetWithMethod is Set, and says which method copied.
func SetWithMethod(text string) (Method, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_WRONLY, 0)
	if err != nil {
		return MethodOSC52, err
	}
	defer tty.Close()
	_, err = fmt.Fprintf(tty, "\x1b]52;c;%s\a", base64.StdEncoding.EncodeToString([]byte(text)))
	return MethodOSC52, err
}

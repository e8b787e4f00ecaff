package telemetry

import (
	"os"
	"sync"
)

// File is a log file that can be moved away while it is written to: Reopen then starts another under its name. All methods
// may be called from any goroutine.
type File struct {
	path string

	mu   sync.Mutex
	file *os.File // guarded by mu
}

// OpenFile opens the file at path to append to, made 0640 if it is absent.
func OpenFile(path string) (*File, error) {
	file, err := open(path)
	if err != nil {
		return nil, err
	}
	return &File{path: path, file: file}, nil
}

func open(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
}

// Write implements io.Writer.
func (f *File) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.file.Write(p)
}

// Reopen goes on in the file that has the name now, and makes it if there is none. On an error it goes on in the old one.
func (f *File) Reopen() error {
	next, err := open(f.path)
	if err != nil {
		return err
	}
	f.mu.Lock()
	old := f.file
	f.file = next
	f.mu.Unlock()
	return old.Close()
}

// Close closes the file.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.file.Close()
}

package bench

import (
	"errors"
	"fmt"
	"os"
)

// picture is the file of --plot; the zero picture is none.
type picture struct {
	file *os.File
	made bool // the file was not there before
	done bool
}

// openPicture fails where the file cannot be written, before anything is measured. What
// is in the file stays until there is something to replace it.
func openPicture(path string) (*picture, error) {
	p := &picture{}
	if path == "" {
		return p, nil
	}
	_, err := os.Stat(path)
	p.made = errors.Is(err, os.ErrNotExist)
	if p.file, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644); err != nil {
		return nil, fmt.Errorf("--plot: %w", err)
	}
	return p, nil
}

// draw replaces what is in the file.
func (p *picture) draw(r Report) error {
	if p.file == nil {
		return nil
	}
	if info, err := p.file.Stat(); err == nil && info.Mode().IsRegular() {
		if err := p.file.Truncate(0); err != nil {
			return fmt.Errorf("--plot: %w", err)
		}
	}
	if _, err := p.file.Write(plot(r)); err != nil {
		return fmt.Errorf("--plot: %w", err)
	}
	p.done = true
	return nil
}

// close removes a file that was made for nothing.
func (p *picture) close() error {
	if p.file == nil {
		return nil
	}
	err := p.file.Close()
	if p.made && !p.done {
		err = errors.Join(err, os.Remove(p.file.Name()))
	}
	return err
}

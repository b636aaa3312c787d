package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
)

// The wrapper of ip(8) tells what the script is about to do, or has just done,
// and waits for the answer. So every namespace has its daemon from its first
// moment on, and no counter goes before it was read:
//
//	enter NAME   a namespace was made
//	leave NAME   it will be deleted, or what runs in it be killed
//	count        a link will be deleted or leave its bridge

// serve answers the wrapper for as long as the machine runs.
func (d *daemons) serve() error {
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				fmt.Println("guest: error", err)
				return
			}
			go d.answer(conn)
		}
	}()
	return nil
}

func (d *daemons) answer(conn net.Conn) {
	defer conn.Close()
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil {
		what, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		err = d.obey(what, name)
	}
	if err != nil {
		fmt.Println("guest: error", err)
		fmt.Fprint(conn, err)
	}
}

func (d *daemons) obey(what, name string) error {
	switch what {
	case "enter":
		return d.enter(name)
	case "leave":
		return d.leave(name)
	case "count":
		d.count()
		return nil
	}
	return fmt.Errorf("no hook %q", what)
}

// call is the wrapper's side.
func call(what string) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := fmt.Fprintln(conn, what); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	if err == nil && len(answer) > 0 {
		err = errors.New(string(answer))
	}
	return err
}

package protocol

// blank gives an empty message of a kind, nil for a kind that this build does
// not know.
func blank(k Kind) Message {
	switch k {
	case KindHello:
		return new(Hello)
	case KindWelcome:
		return new(Welcome)
	case KindAnswer:
		return new(Answer)
	case KindEnvRequest:
		return new(EnvRequest)
	case KindEnv:
		return new(Env)
	case KindNotice:
		return new(Notice)
	case KindDial:
		return new(Dial)
	case KindDatagram:
		return new(Datagram)
	case KindSubscribe:
		return new(Subscribe)
	case KindIncoming:
		return new(Incoming)
	case KindBye:
		return new(Bye)
	case KindStat:
		return new(Stat)
	case KindAttr:
		return new(Attr)
	case KindOpen:
		return new(Open)
	case KindOpened:
		return new(Opened)
	case KindReadAt:
		return new(ReadAt)
	case KindData:
		return new(Data)
	case KindCloseHandle:
		return new(CloseHandle)
	case KindReadDir:
		return new(ReadDir)
	case KindEntries:
		return new(Entries)
	case KindReadlink:
		return new(Readlink)
	case KindStatfs:
		return new(Statfs)
	case KindFsinfo:
		return new(Fsinfo)
	case KindWriteAt:
		return new(WriteAt)
	case KindResize:
		return new(Resize)
	case KindSyncHandle:
		return new(SyncHandle)
	case KindMake:
		return new(Make)
	case KindRemove:
		return new(Remove)
	case KindRename:
		return new(Rename)
	case KindSetAttr:
		return new(SetAttr)
	}
	return nil
}

//! A slow way to a server on this machine.

use std::io::{Read, Write};
use std::time::Duration;

/// A relay to a port of loopback that holds back what comes from there. Returns its own port.
pub fn slow(port: u16, delay: Duration) -> u16 {
    at("127.0.0.1", port, delay)
}

/// The same from an address of this machine.
pub fn at(address: &str, port: u16, delay: Duration) -> u16 {
    let listener = std::net::TcpListener::bind((address, 0)).unwrap();
    let own = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = std::net::TcpStream::connect(("127.0.0.1", port)) else { continue };
            let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
            let (mut from_server, mut to_client) = (server, client);
            std::thread::spawn(move || {
                let mut chunk = [0; 8 << 10];
                while let Ok(read @ 1..) = from_server.read(&mut chunk) {
                    std::thread::sleep(delay);
                    if to_client.write_all(&chunk[..read]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    own
}

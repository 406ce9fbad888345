import signal
async def test_x(mongod_uri, database, credit_server_process):
    s = await credit_server_process()
    print(s.banner, s.address, s.port)
    print(await s.stop(signal.SIGINT), s.log)
def test_y(mongod_uri):
    print(mongod_uri)
